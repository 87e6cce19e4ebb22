// Command hello runs in the pods with which the harness is tested. It answers every request with its host name.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	host, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello from", host) })
	log.Fatal(http.ListenAndServe(":8080", nil))
}
