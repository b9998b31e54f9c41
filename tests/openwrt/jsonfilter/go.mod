module hearth.test/jsonfilter

go 1.24
