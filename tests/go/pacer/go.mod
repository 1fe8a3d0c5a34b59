module pacer

go 1.19
