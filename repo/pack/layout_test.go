package pack

import "testing"

// TestLayoutOf finds the layout of every short pack by its length, and none for
// lengths that no pack has.
func TestLayoutOf(t *testing.T) {
	for _, parity := range []int{0, 1, 3, MaxParity} {
		lengths := make(map[int64]bool)
		for data := 1; data < 3000; data++ {
			want := layoutOf(data, parity)
			lengths[want.Bytes()] = true
			if got, ok := LayoutOf(want.Bytes(), parity); !ok || got != want {
				t.Fatalf("LayoutOf(%d, %d) = %v, %v, want %v", want.Bytes(), parity, got, ok, want)
			}
		}
		for n := range int64(3000) {
			if got, ok := LayoutOf(n*BlockBytes, parity); ok != lengths[n*BlockBytes] {
				t.Fatalf("LayoutOf(%d, %d) = %v, %v", n*BlockBytes, parity, got, ok)
			}
			if got, ok := LayoutOf(n*BlockBytes+1, parity); ok {
				t.Fatalf("LayoutOf(%d, %d) = %v", n*BlockBytes+1, parity, got)
			}
		}
		if got, ok := LayoutOf(1<<62, parity); ok {
			t.Fatalf("LayoutOf(1<<62, %d) = %v", parity, got)
		}
	}
}
