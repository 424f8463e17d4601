package content

import "sync"

// lazy is a value that is made when it is first asked for. What fails is tried
// again the next time.
type lazy[V any] struct {
	mu   sync.Mutex // held while it is made
	made bool
	v    V
}

func (l *lazy[V]) get(how func() (V, error)) (V, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.made {
		v, err := how()
		if err != nil {
			return v, err
		}
		l.v, l.made = v, true
	}
	return l.v, nil
}
