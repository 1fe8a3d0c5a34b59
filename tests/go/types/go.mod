module example.com/heaptap/types

go 1.19
