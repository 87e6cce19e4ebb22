package main

import (
	"fmt"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// kstatusTests is the content of flux/kstatus_test.yaml.
type kstatusTests struct {
	// Testdata is the folder of the objects, relative to the file.
	Testdata string `json:"testdata"`
	// Objects has the files by the status that kstatus must compute: InProgress, Current or Failed.
	Objects map[status.Status][]string `json:"objects"`
}

// checkKstatus compares what kstatus computes with flux/kstatus_test.yaml.
func checkKstatus(r *report, dir string) {
	file := filepath.Join(dir, "flux/kstatus_test.yaml")
	r.check(file, func() error {
		var tests kstatusTests
		if err := load(file, &tests); err != nil {
			return err
		}
		testdata := filepath.Join(filepath.Dir(file), tests.Testdata)
		covered := map[string]bool{}
		for expected, names := range tests.Objects {
			for _, name := range names {
				covered[name] = true
				r.check("kstatus "+name, func() error {
					object, err := loadObject(filepath.Join(testdata, name))
					if err != nil {
						return err
					}
					result, err := status.Compute(&unstructured.Unstructured{Object: whole(object).(map[string]any)})
					if err != nil {
						return err
					}
					if result.Status != expected {
						return fmt.Errorf("%s (%s), expected %s", result.Status, result.Message, expected)
					}
					return nil
				})
			}
		}
		return allCovered(testdata, covered)
	})
}

// whole has int64 where JSON has numbers without fraction, as the Kubernetes libraries expect.
func whole(value any) any {
	switch value := value.(type) {
	case float64:
		if value == float64(int64(value)) {
			return int64(value)
		}
	case []any:
		for i := range value {
			value[i] = whole(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = whole(value[key])
		}
	}
	return value
}
