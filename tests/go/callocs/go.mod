module callocs

go 1.19
