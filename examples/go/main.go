// Converts times between time zones. The configuration names the zones: zone.tokyo = Asia/Tokyo. The variable ZONE is the zone
// of a request that names none.
//
//	GET  /convert?at=2026-07-01T12:00:00Z&to=tokyo    one time as JSON
//	POST /convert?to=tokyo                            a list of times, one a line, of any length
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"
	"time"
	_ "time/tzdata" // a node has no files, so the component brings the zones

	"clock/wasi"
)

func init() {
	log.SetFlags(0)
	wasi.Handler = respond
}

func main() {}

func respond(request *wasi.Request, response *wasi.Response) {
	target, err := url.ParseRequestURI(request.Target)
	if err != nil || target.Path != "/convert" {
		fail(response, 404, "there is no "+request.Target)
		return
	}
	query := target.Query()
	zone, err := zone(query.Get("to"))
	if err != nil {
		fail(response, 404, err.Error())
		return
	}
	switch request.Method {
	case "GET":
		at, err := time.Parse(time.RFC3339, query.Get("at"))
		if err != nil {
			fail(response, 400, "at is not a time such as 2026-07-01T12:00:00Z")
			return
		}
		response.Head(200, "application/json")
		write(response, map[string]string{"zone": zone.String(), "time": at.In(zone).Format(time.RFC3339)})
	case "POST":
		convert(request, response, zone)
	default:
		fail(response, 405, request.Method+" is not supported")
	}
}

// convert answers each line while the next ones arrive.
func convert(request *wasi.Request, response *wasi.Response, zone *time.Location) {
	response.Head(200, "text/plain")
	to := bufio.NewWriter(response)
	lines, converted := bufio.NewScanner(request), 0
	for lines.Scan() {
		at, err := time.Parse(time.RFC3339, lines.Text())
		if err != nil {
			fmt.Fprintf(to, "%q is not a time\n", lines.Text())
			continue
		}
		converted++
		fmt.Fprintln(to, at.In(zone).Format(time.RFC3339))
	}
	if err := lines.Err(); err != nil {
		log.Printf("the list ends early: %v", err)
	}
	to.Flush()
	log.Printf("converted %d times to %s", converted, zone)
}

// zone returns the zone with this name in the configuration.
func zone(name string) (*time.Location, error) {
	if name == "" {
		return time.LoadLocation(os.Getenv("ZONE"))
	}
	found, ok := wasi.Config("zone." + name)
	if !ok {
		return nil, fmt.Errorf("there is no zone for %q", name)
	}
	return time.LoadLocation(found)
}

func fail(response *wasi.Response, status int, message string) {
	response.Head(status, "application/json")
	write(response, map[string]string{"error": message})
}

func write(response *wasi.Response, value any) {
	if err := json.NewEncoder(response).Encode(value); err != nil {
		log.Print(err)
	}
}
