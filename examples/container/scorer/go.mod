module example.com/scorer

go 1.24
