package testreq

import (
	"os"
	"runtime"
	"testing"
)

// recorder stands for a test, and notes how Need ended it.
type recorder struct {
	testing.TB
	skipped, failed bool
	text            string
}

func (r *recorder) Helper() {}

func (r *recorder) Skip(args ...any) { r.skipped, r.text = true, args[0].(string); runtime.Goexit() }

func (r *recorder) Fatal(args ...any) { r.failed, r.text = true, args[0].(string); runtime.Goexit() }

func TestNeed(t *testing.T) {
	tests := []struct {
		name    string
		require string
		what    []string
		skipped bool
		failed  bool
		text    string
	}{
		{"a program that is there", "", []string{"sh"}, false, false, ""},
		{"a program that is not", "", []string{"sh", "no-such-program", "nor-this"}, true, false, "needs no-such-program, nor-this"},
		{"a program that must be there", "all", []string{"no-such-program"}, false, true, "needs no-such-program"},
		{"root", "", []string{"root"}, os.Geteuid() != 0, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("HOLDFAST_REQUIRE", tt.require)
			r := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				Need(r, tt.what...)
			}()
			<-done
			if r.skipped != tt.skipped || r.failed != tt.failed || (tt.text != "" && r.text != tt.text) {
				t.Errorf("skipped %v, failed %v, %q; want %v, %v, %q", r.skipped, r.failed, r.text, tt.skipped, tt.failed, tt.text)
			}
		})
	}
}
