package treetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// Sentinels lists the errors that a Go file declares, by their names: variables
// that begin with Err, and types, with a star in front. A test of a border at which
// they are turned into something else finds with it those that its table forgot.
func Sentinels(tb testing.TB, file string) []string {
	tb.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		tb.Fatal(err)
	}
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.ValueSpec:
			if name := s.Names[0].Name; strings.HasPrefix(name, "Err") {
				names = append(names, name)
			}
		case *ast.TypeSpec:
			names = append(names, "*"+s.Name.Name)
		}
		return true
	})
	if len(names) < 10 {
		tb.Fatalf("%s declares %q only", file, names)
	}
	return names
}
