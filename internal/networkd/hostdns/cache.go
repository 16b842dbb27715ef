package hostdns

import (
	"container/list"
	"sync"
	"time"
)

// Bounds of what is kept.
const (
	longest    = time.Hour   // of an answer
	longestNo  = time.Minute // of "there is no such thing"
	maxEntries = 2048
	maxBytes   = 512 << 10
)

// cache keeps answers as long as they say, the least recently used ones go
// first. It is safe for concurrent use.
type cache struct {
	mu      sync.Mutex // guards the fields below
	entries map[string]*list.Element
	used    list.List // of *entry, the latest in front
	bytes   int
}

type entry struct {
	key          string
	answer       []byte
	ends         int // of the question
	since, until time.Time
}

// get returns a copy of an answer with what is left of its life.
func (c *cache) get(key string, now time.Time) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.entries[key]
	if !ok {
		return nil
	}
	e := el.Value.(*entry)
	if !now.Before(e.until) {
		c.removeLocked(el)
		return nil
	}
	c.used.MoveToFront(el)
	return aged(e.answer, e.ends, now.Sub(e.since))
}

// put keeps a copy of an answer.
func (c *cache) put(key string, answer []byte, ends int, now time.Time, lifetime time.Duration) {
	if lifetime <= 0 || len(answer) > maxUDP {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.entries[key]; ok {
		c.removeLocked(el)
	}
	e := &entry{key: key, answer: append([]byte(nil), answer...), ends: ends, since: now, until: now.Add(lifetime)}
	if c.entries == nil {
		c.entries = map[string]*list.Element{}
	}
	c.entries[key] = c.used.PushFront(e)
	c.bytes += e.size()
	for len(c.entries) > maxEntries || c.bytes > maxBytes {
		c.removeLocked(c.used.Back())
	}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
	c.used.Init()
	c.bytes = 0
}

func (c *cache) removeLocked(el *list.Element) {
	e := c.used.Remove(el).(*entry)
	delete(c.entries, e.key)
	c.bytes -= e.size()
}

func (e *entry) size() int { return len(e.key) + len(e.answer) }
