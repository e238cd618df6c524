module inferno-example

go 1.19
