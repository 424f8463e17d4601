package refcount

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestConcurrent counts and walks in several goroutines while the owner adds,
// spills, commits and rolls back, and another process opens the table. Every
// count grows, so that what was once committed is a lower bound.
func TestConcurrent(t *testing.T) {
	fsys := newMem(t)
	x := own(t, fsys, Options{CacheBytes: 32 << 10, MaxDelta: 100, floorRows: 50})
	const ids, rounds = 400, 25
	for i := range ids {
		must(t, x.Add(testID(uint64(i)), 1))
	}
	must(t, x.Commit([]byte{1}))

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var wg sync.WaitGroup
	again := func(do func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	i := 0
	again(func() error {
		i = (i + 7) % ids
		n, err := x.Count(testID(uint64(i)))
		if err == nil && (n < 1 || n > rounds+1) {
			return fmt.Errorf("id %d counts %d", i, n)
		}
		return err
	})
	again(func() error {
		n := 0
		err := x.Walk(func(_ [PrefixBytes]byte, count int64) error { n++; return nil })
		if err == nil && n != ids {
			return fmt.Errorf("a walk sees %d ids", n)
		}
		return errors.Join(err, x.Touched(func(p [PrefixBytes]byte, change int64) error {
			_, err := x.CountPrefix(p)
			return err
		}))
	})
	again(func() error {
		y, err := Open(fsys, dir, Options{})
		if err != nil {
			return err
		}
		round := int64(y.Payload()[0])
		err = y.Walk(func(p [PrefixBytes]byte, count int64) error {
			if count != round {
				return fmt.Errorf("%x counts %d in round %d", p, count, round)
			}
			return nil
		})
		return errors.Join(err, y.Skipped(), y.Close())
	})
	for round := range rounds {
		for range 2 {
			must(t, x.Rollback())
			for i := range ids {
				must(t, x.Add(testID(uint64(i)), 1))
			}
		}
		must(t, x.Commit([]byte{byte(round + 2)}))
	}
	stop()
	wg.Wait()
	must(t, x.Close())
	if infos, err := fsys.ReadDir("tmp"); err != nil || len(infos) > 0 {
		t.Errorf("tmp holds %v, %v", infos, err)
	}
}
