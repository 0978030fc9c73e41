package parser

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2"

	"ambit/bpf"
)

// tune is a conversation without an end, of exchanges that can be told apart by every field.
type tune struct {
	rng      *rand.Rand
	encoders [2]headerEncoder
	n        int
}

func newTune() *tune {
	return &tune{rng: rand.New(rand.NewPCG(1, 31)), encoders: [2]headerEncoder{newNetEncoder(), newNetEncoder()}}
}

// next is one exchange.
func (u *tune) next() conversation {
	var c conversation
	if u.n == 0 {
		c = append(c, ask(http2.ClientPreface+string(settingsFrame())), reply(string(settingsFrame())))
	}
	stream := uint32(2*u.n + 1)
	request := u.encoders[opener].block(fieldsOf(":method", "POST", ":scheme", "http", ":path", fmt.Sprint("/hum/", u.n), ":authority", "tune",
		"user-agent", fmt.Sprint("hum/", u.n/10), "x-request-id", fmt.Sprint("id-", u.n), "content-type", "text/plain"))
	response := u.encoders[acceptor].block(fieldsOf(":status", fmt.Sprint(200+u.n%300), "content-type", fmt.Sprint("text/", u.n%7)))
	body := make([]byte, u.rng.IntN(3000))
	c = append(c,
		ask(string(layout{}.headers(stream, request))),
		ask(string(layout{end: true}.data(stream, body))),
		reply(string(layout{}.headers(stream, response))+string(layout{end: true}.data(stream, body[len(body)/2:]))))
	u.n++
	return c
}

// beside runs what is hostile while another connection goes on, which has to be read right, and looks that nothing is left
// of either.
func beside(t *testing.T, l *loaded, hostile func()) {
	t.Helper()
	s := l.speak(t, "hum", "127.0.0.1", "")
	port := s.heard(t).Port
	l.busy = true
	wait(t, func() error {
		if l.counters(t)["http2"] == 0 {
			return errors.New("it does not hum")
		}
		return nil
	})
	l.flows = l.held(t)["flows"]
	hostile()
	if err := s.end.Close(); err != nil {
		t.Fatal(err)
	}
	n := s.heard(t).Number
	l.flows, l.busy = l.start["flows"], false
	l.ended(t)
	l.drained(t)
	l.mu.Lock()
	o := outcome{records: l.records[port], counters: make(map[string]uint64)}
	delete(l.records, port)
	l.mu.Unlock()
	o.settle()
	u := newTune()
	var c conversation
	for range n {
		c = append(c, u.next()...)
	}
	if err := referenceOf(c.segments(), bpf.EndingClosed).compare(&o); err != nil {
		t.Errorf("the connection beside it: %v", err)
	}
	t.Logf("%d exchanges beside it", n)
	l.over(t)
}

// plays are conversations to be held against the reference.
type plays struct {
	abouts   []string
	segments [][]segment
}

func (p *plays) add(about string, c conversation, cuts ...int) {
	p.abouts = append(p.abouts, about)
	p.segments = append(p.segments, c.segments(cuts...))
}

// agree plays them all, and forgets them.
func (p *plays) agree(t *testing.T, l *loaded) {
	t.Helper()
	for i, o := range l.play(t, p.segments...) {
		want := referenceOf(p.segments[i], bpf.EndingClosed)
		if err := want.compare(&o); err != nil {
			t.Errorf("%s: %v\ncounters %v\n%s", p.abouts[i], err, o.counters, h2Trace(p.segments[i]))
		}
	}
	*p = plays{}
}

// What is hostile is read over real connections as the reference does: whole, in pieces, byte by byte, and up to any byte
// near its beginning.
func TestLoadedHostile(t *testing.T) {
	l := load(t)
	beside(t, l, func() {
		var p plays
		for i, s := range hostile {
			rng := rand.New(rand.NewPCG(uint64(i), 32))
			c := turnsOf(rng, s.request, s.response, true)
			p.add(s.about, packed(c))
			p.add(s.about+", cut", c, randomCuts(rng, c)...)
			if c.size() < 1000 {
				p.add(s.about+", byte by byte", c, everyByte(c)...)
			}
			for range 3 {
				request, response := s.request[:rng.IntN(min(len(s.request), 60))], s.response[:rng.IntN(min(len(s.response), 60))]
				p.add(s.about+", the opener cut off", turnsOf(rng, request, s.response, true))
				p.add(s.about+", the acceptor cut off", turnsOf(rng, s.request, response, false))
			}
			p.agree(t, l)
		}
	})
}

// So is what is damaged or random, from fixed seeds.
func TestLoadedDamage(t *testing.T) {
	l := load(t)
	beside(t, l, func() {
		var p plays
		for seed := range uint64(400) {
			rng := rand.New(rand.NewPCG(seed, 33))
			talk := randomH2Talk(rng, h2Plan{streams: 4, steps: 5 + rng.IntN(60), tables: []uint32{0, 100, 4096}, long: rng.IntN(4) == 0}).turns
			request, response := talk.stream(opener)[len(http2.ClientPreface):], talk.stream(acceptor)
			if seed%3 > 0 {
				request, response = damage(rng, request), damage(rng, response)
			} else {
				request = append(request[:rng.IntN(len(request))], noise(rng)...)
				response = append(response[:rng.IntN(len(response))], noise(rng)...)
			}
			c := turnsOf(rng, request, response, seed%2 == 0)
			p.add(fmt.Sprint("seed ", seed), c)
			p.add(fmt.Sprintf("seed %d, cut", seed), c, randomCuts(rng, c)...)
			if seed%20 == 19 {
				p.agree(t, l)
			}
		}
	})
}

func noise(rng *rand.Rand) []byte {
	b := make([]byte, rng.IntN(3000))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
