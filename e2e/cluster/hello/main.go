// Command hello is the pod with which the harness tests itself: it answers every request with its host name.
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
