package lru

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestForgetsTheOneUsedLongestAgo(t *testing.T) {
	c := New[int, int](2)
	loads := 0
	get := func(k int) {
		t.Helper()
		v, err := c.Get(k, func() (int, error) { loads++; return k * 10, nil })
		if err != nil || v != k*10 {
			t.Fatalf("Get(%d) = %d, %v; want %d", k, v, err, k*10)
		}
	}
	get(1)
	get(2)
	get(1) // 2 is now the older one
	get(3) // forgets 2
	if loads != 3 {
		t.Fatalf("%d loads, want 3", loads)
	}
	get(1)
	get(3)
	if loads != 3 {
		t.Fatalf("%d loads after hits, want 3", loads)
	}
	get(2)
	if loads != 4 || len(c.items) != 2 || c.order.Len() != 2 {
		t.Fatalf("%d loads, %d items, %d in order; want 4, 2, 2", loads, len(c.items), c.order.Len())
	}
}

func TestErrorIsNotRemembered(t *testing.T) {
	c := New[string, int](1)
	bad := errors.New("bad")
	if _, err := c.Get("a", func() (int, error) { return 0, bad }); !errors.Is(err, bad) {
		t.Fatalf("err = %v, want %v", err, bad)
	}
	if v, err := c.Get("a", func() (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Fatalf("Get = %d, %v; want 7, nil", v, err)
	}
}

func TestOneLoadForAll(t *testing.T) {
	c := New[int, int](1)
	var loads atomic.Int32
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	get := func() {
		v, err := c.Get(1, func() (int, error) {
			loads.Add(1)
			close(started)
			<-release
			return 5, nil
		})
		if v != 5 || err != nil {
			t.Errorf("Get = %d, %v; want 5, nil", v, err)
		}
	}
	wg.Go(get)
	<-started
	for range 3 {
		wg.Go(get)
	}
	close(release)
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Fatalf("%d loads, want 1", n)
	}
}
