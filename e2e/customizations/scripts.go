package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sort"

	lua "github.com/yuin/gopher-lua"
	"sigs.k8s.io/yaml"
)

// healthTests is the content of health_test.yaml.
type healthTests struct {
	Tests []struct {
		InputPath    string         `json:"inputPath"`
		HealthStatus map[string]any `json:"healthStatus"`
	} `json:"tests"`
}

// actionTests is the content of actions/action_test.yaml.
type actionTests struct {
	DiscoveryTests []struct {
		InputPath string           `json:"inputPath"`
		Result    []map[string]any `json:"result"`
	} `json:"discoveryTests"`
	ActionTests []struct {
		Action               string `json:"action"`
		InputPath            string `json:"inputPath"`
		ExpectedOutputPath   string `json:"expectedOutputPath"`
		ExpectedErrorMessage string `json:"expectedErrorMessage"`
	} `json:"actionTests"`
}

// checkScripts runs health_test.yaml and action_test.yaml of every kind below the folder. Each object of testdata must
// have a test for its health, and each action one that runs it.
func checkScripts(r *report, root string) {
	kinds, err := kindsIn(root)
	if err != nil {
		r.check(root, func() error { return err })
		return
	}
	for _, kind := range kinds {
		dir := filepath.Join(root, kind)
		r.check(kind, func() error { return checkHealth(r, dir) })
		if _, err := os.Stat(filepath.Join(dir, "actions")); err == nil {
			r.check(kind+"/actions", func() error { return checkActions(r, filepath.Join(dir, "actions")) })
		}
	}
}

func checkHealth(r *report, dir string) error {
	script, err := os.ReadFile(filepath.Join(dir, "health.lua"))
	if err != nil {
		return err
	}
	var tests healthTests
	if err := load(filepath.Join(dir, "health_test.yaml"), &tests); err != nil {
		return err
	}
	covered := map[string]bool{}
	for _, test := range tests.Tests {
		covered[filepath.Base(test.InputPath)] = true
		r.check(filepath.Join(dir, test.InputPath), func() error {
			object, err := loadObject(filepath.Join(dir, test.InputPath))
			if err != nil {
				return err
			}
			health, err := run(object, string(script))
			if err != nil {
				return err
			}
			return same(health, test.HealthStatus)
		})
	}
	return allCovered(filepath.Join(dir, "testdata"), covered)
}

func checkActions(r *report, dir string) error {
	discovery, err := os.ReadFile(filepath.Join(dir, "discovery.lua"))
	if err != nil {
		return err
	}
	var tests actionTests
	if err := load(filepath.Join(dir, "action_test.yaml"), &tests); err != nil {
		return err
	}
	for _, test := range tests.DiscoveryTests {
		r.check("discovery "+test.InputPath, func() error {
			object, err := loadObject(filepath.Join(dir, test.InputPath))
			if err != nil {
				return err
			}
			found, err := run(object, string(discovery))
			if err != nil {
				return err
			}
			actions, _ := found.(map[string]any)
			expected := map[string]any{}
			for _, action := range test.Result {
				name := fmt.Sprint(action["name"])
				delete(action, "name")
				expected[name] = action
			}
			return same(actions, expected)
		})
	}
	covered := map[string]bool{}
	for _, test := range tests.ActionTests {
		covered[test.Action] = true
		r.check(test.Action+" "+test.InputPath, func() error {
			object, err := loadObject(filepath.Join(dir, test.InputPath))
			if err != nil {
				return err
			}
			script, err := os.ReadFile(filepath.Join(dir, test.Action, "action.lua"))
			if err != nil {
				return err
			}
			result, err := run(object, string(script))
			if test.ExpectedErrorMessage != "" {
				return sameError(err, test.ExpectedErrorMessage)
			}
			if err != nil {
				return err
			}
			expected, err := loadObject(filepath.Join(dir, test.ExpectedOutputPath))
			if err != nil {
				return err
			}
			return same(restoreEmpty(result, object), expected)
		})
	}
	names, err := actionsIn(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !covered[name] {
			return fmt.Errorf("no test runs the action %s", name)
		}
	}
	return nil
}

// same compares values as JSON has them, where all numbers are float64.
func same(found, expected any) error {
	if reflect.DeepEqual(found, expected) {
		return nil
	}
	left, _ := yaml.Marshal(found)
	right, _ := yaml.Marshal(expected)
	return fmt.Errorf("found\n%s\nexpected\n%s", left, right)
}

// sameError compares the message as Argo CD reports it, without the stack.
func sameError(err error, expected string) error {
	var failure *lua.ApiError
	if errors.As(err, &failure) && failure.Object.String() == expected {
		return nil
	}
	return fmt.Errorf("error %v, expected %q", err, expected)
}

func allCovered(dir string, covered map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !covered[entry.Name()] {
			return fmt.Errorf("no test reads testdata/%s", entry.Name())
		}
	}
	return nil
}

// kindsIn returns the folders with a health.lua, as GROUP/KIND.
func kindsIn(root string) ([]string, error) {
	var kinds []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "health.lua" {
			kind, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			kinds = append(kinds, kind)
		}
		return err
	})
	sort.Strings(kinds)
	return kinds, err
}

// actionsIn returns the names of the folders with an action.lua, sorted.
func actionsIn(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "action.lua"))
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(filepath.Dir(path)))
	}
	return names, err
}

func load(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(text, into)
}

func loadObject(path string) (map[string]any, error) {
	object := map[string]any{}
	return object, load(path, &object)
}
