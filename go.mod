module example.org/mediaproxy

go 1.26
