module lives

go 1.19
