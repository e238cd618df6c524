package main

import (
	"fmt"
	"log"
)

func main() {
	text, err := runInference("Explain quantum physics")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)
}
