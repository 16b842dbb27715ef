// Floor is a first program that does nothing but say that it runs: how soon a
// kernel gets there is what the start of a machine is compared with.
package main

import (
	"fmt"
	"time"
)

func main() {
	fmt.Println("floor: the first program runs")
	for {
		time.Sleep(time.Hour) // the kernel panics when its first program ends
	}
}
