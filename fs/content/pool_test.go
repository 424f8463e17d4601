package content

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// thing is what the pool of the tests keeps.
type thing struct {
	key    int
	closed atomic.Bool
}

// TestPool uses a pool at random from several goroutines: nothing is closed
// while it is used, nothing is opened twice at a time, nothing is left open.
func TestPool(t *testing.T) {
	var open [20]atomic.Int32
	var opens atomic.Int32
	p := newPool(4,
		func(ctx context.Context, k int) (*thing, error) {
			if n := opens.Add(1); n%7 == 0 {
				return nil, errors.New("this one fails")
			}
			open[k].Add(1)
			return &thing{key: k}, nil
		},
		func(v *thing) {
			v.closed.Store(true)
			open[v.key].Add(-1)
		})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			for range 2000 {
				k := rng.IntN(len(open))
				v, release, err := p.acquire(t.Context(), k)
				if err != nil {
					continue
				}
				if v.key != k || v.closed.Load() {
					t.Errorf("asked for %d, got %d, closed %v", k, v.key, v.closed.Load())
				}
				if rng.IntN(10) == 0 {
					p.trim(time.Now())
				}
				if v.closed.Load() {
					t.Errorf("%d was closed while used", k)
				}
				release()
			}
		})
	}
	wg.Wait()
	left := 0
	for k := range open {
		left += int(open[k].Load())
	}
	if left > 4 {
		t.Errorf("%d are open when nobody uses any, want at most 4", left)
	}
	p.end()
	for k := range open {
		if n := open[k].Load(); n != 0 {
			t.Errorf("%d: %d are open in the end", k, n)
		}
	}
	if _, _, err := p.acquire(t.Context(), 1); err == nil {
		t.Error("a pool gave something out after its end")
	}
}

// TestPoolWaits lets somebody give up while another opens, and the other way
// round.
func TestPoolWaits(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	p := newPool(1, func(ctx context.Context, k int) (int, error) {
		select {
		case begun <- true:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		select {
		case <-goOn:
			return k, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}, func(int) {})
	defer p.end()
	first, stopFirst := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, _, err := p.acquire(first, 5)
		failed <- err
	}()
	<-begun
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if _, _, err := p.acquire(short, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waited without patience: %v", err)
	}
	got := make(chan int)
	go func() {
		v, release, err := p.acquire(t.Context(), 5)
		if err != nil {
			t.Error(err)
		} else {
			release()
		}
		got <- v
	}()
	time.Sleep(10 * time.Millisecond) // it waits for the first
	stopFirst()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	<-begun
	goOn <- true
	if v := <-got; v != 5 {
		t.Errorf("the second got %d", v)
	}
}
