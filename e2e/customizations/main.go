// Command customizations checks what GitOps tools make of the objects of Selvage, with the libraries of these tools:
// the Lua scripts that Argo CD runs for health and actions, and kstatus, by which Flux waits.
//
//	customizations check integrations    runs all tests below the folder
//	customizations write integrations    writes argo-cd/argocd-cm.yaml from the scripts
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

const configMap = "argo-cd/argocd-cm.yaml"

func main() {
	if len(os.Args) != 3 || (os.Args[1] != "check" && os.Args[1] != "write") {
		fmt.Fprintln(os.Stderr, "usage: customizations check|write FOLDER")
		os.Exit(2)
	}
	dir := os.Args[2]
	text, err := renderConfigMap(filepath.Join(dir, "argo-cd/resource_customizations"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Args[1] == "write" {
		if err := os.WriteFile(filepath.Join(dir, configMap), text, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	r := &report{}
	r.check(configMap, func() error {
		committed, err := os.ReadFile(filepath.Join(dir, configMap))
		if err != nil {
			return err
		}
		if !bytes.Equal(committed, text) {
			return fmt.Errorf("it is not what the scripts give: run make customizations")
		}
		return nil
	})
	checkScripts(r, filepath.Join(dir, "argo-cd/resource_customizations"))
	checkKstatus(r, dir)
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 || r.passed < 2 {
		os.Exit(1)
	}
}

// report counts tests and prints the failed ones.
type report struct{ passed, failed int }

func (r *report) check(name string, test func() error) {
	if err := test(); err != nil {
		r.failed++
		fmt.Printf("FAILED %s: %v\n", name, err)
		return
	}
	r.passed++
}
