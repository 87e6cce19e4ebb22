package main

import (
	"encoding/json"
	"fmt"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
)

// run executes a script as Argo CD does: with the libraries package, base and table, and the functions time and date of
// os. There is no library for strings.
func run(object map[string]any, script string) (any, error) {
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	l.SetGlobal("obj", decode(l, object))
	l.SetGlobal("actionParams", l.NewTable())
	if err := l.DoString(script); err != nil {
		return nil, err
	}
	table, ok := l.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returns %s, not a table", l.Get(-1).Type())
	}
	text, err := luajson.Encode(table)
	if err != nil {
		return nil, err
	}
	var value any
	return value, json.Unmarshal(text, &value)
}

// decode makes a value of Lua, with absent keys for null.
func decode(l *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := l.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(decode(l, item))
		}
		return table
	case map[string]any:
		table := l.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetString(key, decode(l, item))
		}
		return table
	}
	return lua.LNil
}

// restoreEmpty undoes what Lua cannot tell apart: it returns an empty map as an empty list. Argo CD does the same.
func restoreEmpty(result, original any) any {
	switch original := original.(type) {
	case map[string]any:
		if list, ok := result.([]any); ok && len(list) == 0 {
			return map[string]any{}
		}
		if object, ok := result.(map[string]any); ok {
			for key, value := range object {
				object[key] = restoreEmpty(value, original[key])
			}
		}
	case []any:
		if list, ok := result.([]any); ok {
			for i := range min(len(list), len(original)) {
				list[i] = restoreEmpty(list[i], original[i])
			}
		}
	}
	return result
}
