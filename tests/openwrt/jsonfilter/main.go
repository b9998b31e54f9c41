// Jsonfilter stands in for OpenWrt's program of that name in the tests: the part of its language that hearth's
// scripts use, which is @, .name, ["name"], [*], [0] and [@.name='text'].
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
)

var steps = regexp.MustCompile(`^(?:\.(\w+)|\["([^"]*)"\]|\[(\*|\d+)\]|\[@\.(\w+)='([^']*)'\])`)

func main() {
	expression := ""
	for i, argument := range os.Args {
		if argument == "-e" && i+1 < len(os.Args) {
			expression = os.Args[i+1]
		}
	}
	var value any
	if json.NewDecoder(os.Stdin).Decode(&value) != nil || expression == "" || expression[0] != '@' {
		os.Exit(1)
	}
	values := []any{value}
	for rest := expression[1:]; rest != ""; {
		step := steps.FindStringSubmatch(rest)
		if step == nil {
			fmt.Fprintln(os.Stderr, "jsonfilter: this stand-in does not know", rest)
			os.Exit(2)
		}
		rest = rest[len(step[0]):]
		var next []any
		for _, value := range values {
			next = append(next, follow(value, step)...)
		}
		values = next
	}
	for _, value := range values {
		if text, ok := value.(string); ok {
			fmt.Println(text)
		} else {
			text, _ := json.Marshal(value)
			fmt.Println(string(text))
		}
	}
	if len(values) == 0 {
		os.Exit(1)
	}
}

func follow(value any, step []string) (found []any) {
	if name := step[1] + step[2]; name != "" {
		if object, ok := value.(map[string]any); ok {
			if member, ok := object[name]; ok && member != nil {
				return []any{member}
			}
		}
		return nil
	}
	list, _ := value.([]any)
	for i, item := range list {
		object, _ := item.(map[string]any)
		switch {
		case step[3] == "*", step[3] == strconv.Itoa(i), step[4] != "" && object[step[4]] == step[5]:
			found = append(found, item)
		}
	}
	return found
}
