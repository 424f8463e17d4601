package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// jsonList writes the object of a listing that may be long: fields, and one list
// whose elements are not all held in memory.
type jsonList struct {
	app   *app
	count int
	err   error
}

type jsonField struct {
	name  string
	value any
}

// beginList begins an object with its schema, fields and the list called name.
func (a *app) beginList(schema, name string, fields ...jsonField) *jsonList {
	l := &jsonList{app: a}
	l.print("{\n  \"schema\": ")
	l.value(schema, "  ")
	for _, f := range fields {
		l.print(",\n  %q: ", f.name)
		l.value(f.value, "  ")
	}
	l.print(",\n  %q: [", name)
	return l
}

func (l *jsonList) print(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.app.out, format, args...)
	}
}

func (l *jsonList) value(v any, indent string) {
	if l.err != nil {
		return
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent(indent, "  ")
	if l.err = enc.Encode(v); l.err == nil {
		_, l.err = l.app.out.Write(bytes.TrimRight(b.Bytes(), "\n"))
	}
}

// add writes an element of the list.
func (l *jsonList) add(v any) {
	if l.count++; l.count > 1 {
		l.print(",")
	}
	l.print("\n    ")
	l.value(v, "    ")
}

// end writes the end of the list, what follows it, and the end of the object.
func (l *jsonList) end(fields ...jsonField) error {
	if l.count > 0 {
		l.print("\n  ")
	}
	l.print("]")
	for _, f := range fields {
		l.print(",\n  %q: ", f.name)
		l.value(f.value, "  ")
	}
	l.print("\n}\n")
	return l.err
}

// failure tells of one file that a verb goes on without. The verb ends with an
// error of its own.
func (a *app) failure(verb, path string, err error) {
	if a.json {
		json.NewEncoder(a.err).Encode(struct { //nolint:errcheck // nobody to tell
			Path  string `json:"path"`
			Error string `json:"error"`
		}{path, oneLine(err)})
		return
	}
	fmt.Fprintf(a.err, "holdfast: %s: %s: %s\n", verb, plain(path), plain(oneLine(err)))
}
