package main

import (
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// actionDefinitions is the form of actions in the ConfigMap argocd-cm.
type actionDefinitions struct {
	Discovery   string             `json:"discovery.lua"`
	Definitions []actionDefinition `json:"definitions"`
}

type actionDefinition struct {
	Name   string `json:"name"`
	Action string `json:"action.lua"`
}

// renderConfigMap returns the scripts of all kinds below the folder as a ConfigMap.
func renderConfigMap(root string) ([]byte, error) {
	kinds, err := kindsIn(root)
	if err != nil {
		return nil, err
	}
	data := map[string]string{}
	for _, kind := range kinds {
		dir := filepath.Join(root, kind)
		key := strings.Replace(kind, string(filepath.Separator), "_", 1)
		health, err := os.ReadFile(filepath.Join(dir, "health.lua"))
		if err != nil {
			return nil, err
		}
		data["resource.customizations.health."+key] = string(health)
		names, err := actionsIn(filepath.Join(dir, "actions"))
		if err != nil || len(names) == 0 {
			continue
		}
		actions, err := renderActions(filepath.Join(dir, "actions"), names)
		if err != nil {
			return nil, err
		}
		data["resource.customizations.actions."+key] = actions
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   map[string]any{"name": "argocd-cm", "namespace": "argocd"},
		"data":       data,
	})
	if err != nil {
		return nil, err
	}
	head := "# Health checks and actions of Selvage for Argo CD. Written by make customizations from resource_customizations/.\n"
	return append([]byte(head), text...), nil
}

func renderActions(dir string, names []string) (string, error) {
	discovery, err := os.ReadFile(filepath.Join(dir, "discovery.lua"))
	if err != nil {
		return "", err
	}
	all := actionDefinitions{Discovery: string(discovery)}
	for _, name := range names {
		script, err := os.ReadFile(filepath.Join(dir, name, "action.lua"))
		if err != nil {
			return "", err
		}
		all.Definitions = append(all.Definitions, actionDefinition{Name: name, Action: string(script)})
	}
	text, err := yaml.Marshal(all)
	return string(text), err
}
