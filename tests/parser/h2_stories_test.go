package parser

import (
	"archive/tar"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ambit/bpf"
)

// story is one direction of a connection, as an encoder wrote it.
type story struct {
	name   string
	blocks []storyBlock
	side   int // whose they are
	size   int // of the longest block
}

type storyBlock struct {
	wire   []byte
	fields []hpack.HeaderField
	table  *uint32 // that the other side offered before
}

// stories reads the corpus.
func stories(t testing.TB) []story {
	t.Helper()
	f, err := os.Open("testdata/hpack/stories.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []story
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		s, err := readStory(archive)
		if err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		s.name = h.Name
		out = append(out, s)
	}
}

func readStory(r io.Reader) (story, error) {
	var file struct {
		Cases []struct {
			Wire      string              `json:"wire"`
			Headers   []map[string]string `json:"headers"`
			TableSize *uint32             `json:"header_table_size"`
		} `json:"cases"`
	}
	var s story
	if err := json.NewDecoder(r).Decode(&file); err != nil {
		return s, err
	}
	for _, c := range file.Cases {
		b := storyBlock{table: c.TableSize}
		var err error
		if b.wire, err = hex.DecodeString(c.Wire); err != nil {
			return s, err
		}
		for _, header := range c.Headers {
			for name, value := range header {
				b.fields = append(b.fields, hpack.HeaderField{Name: name, Value: value})
				if name == ":status" {
					s.side = acceptor
				}
			}
		}
		s.size = max(s.size, len(b.wire))
		s.blocks = append(s.blocks, b)
	}
	return s, nil
}

// told is the story as a conversation: each block is a request that is answered, or the answer of one. lay says how the
// block is put into frames.
func (s *story) told(lay func(n int) layout) conversation {
	c := conversation{
		ask(http2.ClientPreface + string(settingsFrame())),
		reply(string(settingsFrame())),
	}
	other := []byte{0x82, 0x84, 0x86} // GET / http
	if s.side == opener {
		other = []byte{0x88} // 200
	}
	for i, b := range s.blocks {
		stream := uint32(2*i + 1)
		if b.table != nil {
			c = append(c, turn{side: 1 - s.side, text: string(settingsFrame(http2.Setting{ID: http2.SettingHeaderTableSize, Val: *b.table}))})
		}
		l := lay(len(b.wire))
		l.end = true
		turns := []turn{{side: s.side, text: string(l.headers(stream, b.wire))}, {side: 1 - s.side, text: string(layout{end: true}.headers(stream, other))}}
		if s.side == acceptor {
			slices.Reverse(turns)
		}
		c = append(c, turns...)
	}
	return c
}

// blockCuts cuts each block of the plain conversation at the same place.
func (s *story) blockCuts(c conversation, place int) []int {
	var cuts []int
	at := 0
	for _, t := range c {
		if t.side == s.side && len(t.text) > 9 && t.text[3] == byte(http2.FrameHeaders) {
			cuts = append(cuts, at+9+min(place, len(t.text)-10))
		}
		at += len(t.text)
	}
	return cuts
}

// reads tells whether the reference reads the story as it is told.
func (s *story) reads(r *h2Reference) error {
	if r.broken != nil || len(r.done) != len(s.blocks) {
		return fmt.Errorf("%d exchanges of %d: %v", len(r.done), len(s.blocks), r.broken)
	}
	for i, e := range r.done {
		got := e.request
		if s.side == acceptor {
			got = e.response
		}
		for j := range got {
			got[j].Sensitive = false
		}
		if !slices.Equal(got, s.blocks[i].fields) {
			return fmt.Errorf("block %d is %q, want %q", i, got, s.blocks[i].fields)
		}
	}
	return nil
}

// Every block of the corpus is read right: whole, cut at every byte, byte by byte, in frames that are cut at every byte,
// and with all that may be around it.
func TestHPACKStories(t *testing.T) {
	d := start(t)
	plain := func(int) layout { return layout{} }
	for _, s := range stories(t) {
		t.Run(s.name, func(t *testing.T) {
			c := s.told(plain)
			want := referenceOf(c.segments(), bpf.EndingClosed)
			if err := s.reads(want); err != nil {
				t.Fatal(err)
			}
			plays := []conversation{c, c}
			cuts := [][]int{nil, everyByte(c)}
			step := 1 + len(s.blocks)/15 // the long stories' blocks are like the others'
			for place := 0; place <= s.size; place += step {
				plays, cuts = append(plays, c), append(cuts, s.blockCuts(c, place))
				plays = append(plays, s.told(func(n int) layout { return layout{cuts: []int{min(place, n)}} }))
				cuts = append(cuts, nil)
			}
			rng := rand.New(rand.NewPCG(uint64(s.size), 25))
			for range 50 {
				spread := s.told(func(n int) layout { return randomLayout(rng, n, false) })
				plays, cuts = append(plays, spread), append(cuts, randomCuts(rng, spread))
			}
			for i := range plays {
				o := d.run(t, played(plays[i].segments(cuts[i]...)))[0]
				if err := want.compare(&o); err != nil {
					t.Fatalf("play %d: %v\n%s", i, err, h2Trace(plays[i].segments(cuts[i]...)))
				}
			}
		})
	}
}

func everyByte(c conversation) []int {
	cuts := make([]int, c.size())
	for i := range cuts {
		cuts[i] = i
	}
	return cuts
}
