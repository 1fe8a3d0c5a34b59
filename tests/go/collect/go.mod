module collect

go 1.19
