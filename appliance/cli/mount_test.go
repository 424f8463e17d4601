package cli

import (
	"slices"
	"testing"
)

// TestMountArgs begins the serving process with what the person gave, and with
// the passphrase that was asked for where only that process looks.
func TestMountArgs(t *testing.T) {
	opt := mountOptions{dir: "/r", mountpoint: "/m"}
	for _, tt := range []struct {
		name string
		a    app
		opt  mountOptions
		want []string
	}{
		{"plain", app{logLevel: "warn"}, opt, []string{"mount", "/r", "/m", "--announce", "--log-level", "warn"}},
		{
			"all", app{logLevel: "info", logFormat: "json", json: true, passphraseFile: "p", identityFiles: []string{"i", "j"}},
			mountOptions{dir: "/r", mountpoint: "/m", allowOther: true},
			[]string{"mount", "/r", "/m", "--announce", "--log-level", "info", "--log-format", "json", "--allow-other", "--json", "--passphrase-file", "p", "--identity-file", "i", "--identity-file", "j"},
		},
		{"asked", app{logLevel: "warn", asked: []byte("secret")}, opt, []string{"mount", "/r", "/m", "--announce", "--log-level", "warn", "--passphrase-file", "/dev/stdin"}},
	} {
		if got := tt.a.mountArgs(tt.opt); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
