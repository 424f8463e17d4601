package seal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Whatever holds a key, as it may be handed to a formatter by mistake.
func TestSecretsDoNotPrint(t *testing.T) {
	m := Master(run('A', 32)) // prints as ABCD… if it prints at all
	k := Derive(m, [16]byte{})
	s := knownSigner(t)
	s.key = run('A', 64)
	for name, v := range map[string]any{
		"master": m, "pointer to master": &m, "keys": k, "keys by value": *k, "record key": k.Record([SaltBytes]byte{}), "signer": s,
		"master in a struct": struct{ M Master }{m}, "master in a slice": []Master{m},
	} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
		if p, err := json.Marshal(v); err == nil {
			out.Write(p)
		}
		if n := strings.Count(out.String(), redactedText); n < 16 {
			t.Errorf("%s: redacted %d times of 16: %s", name, n, out.String())
		}
		for _, leak := range []string{"ABCD", "65 66", "65,66", "414243", "0x41", "QUJD"} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("%s: prints %q: %s", name, leak, out.String())
			}
		}
	}
}
