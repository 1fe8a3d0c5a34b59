module leakyhttp

go 1.19
