package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A preamble opens every Raft stream. Raft itself never checks whom it talks
// to, so without it a reused address would mix up clusters, or let a new disk
// acknowledge entries in the name of the one it replaces. On the wire:
//
//	magic       4 bytes  F5 'S' 'R' 'G'; no other protocol of the port begins so
//	version     u8       3
//	kind        u8       1 a stream, 2 a question; see preambleKind
//	cluster     16 bytes
//	incarnation 16 bytes
//	process     16 bytes of the caller; in a question, the one that is asked about
//	config      u64      index of the newest configuration that the caller knows
//	term        u64      see acknowledged
//	acknowledged u64     the newest entry that the target has acknowledged to the
//	                     caller, in that term; 0: none
//	target      u8 length, bytes: the ServerID that is meant
//	source      u8 length, bytes: the caller's ServerID
//	address     u8 length, bytes: where the caller says that others reach it
//
// The answer, which a stranger does not get, is the magic, a code u8 and, except
// for answerWelcome, a text: u8 length, bytes. It begins so because another program
// may listen at the address by now, and say anything: an answer can stop a replica.
type preamble struct {
	kind                       preambleKind
	cluster                    shardcfg.ClusterID
	incarnation                shardcfg.Incarnation
	process                    processID
	config, term, acknowledged uint64
	target, source, address    string
}

// A preambleKind says what the caller wants.
type preambleKind byte

const (
	// kindStream: Raft's messages follow.
	kindStream preambleKind = 1
	// kindQuestion: is the process that is named the one that answers here?
	kindQuestion preambleKind = 2
)

// A processID names one life of a process: 128 random bits, drawn at its start.
type processID [16]byte

const (
	preambleMagic   = "\xf5SRG"
	preambleVersion = 3
)

// append encodes p. Server ids and addresses are at most 255 bytes long
// (formation bounds them).
func (p preamble) append(b []byte) []byte {
	b = append(b, preambleMagic...)
	b = append(b, preambleVersion, byte(p.kind))
	b = append(b, p.cluster[:]...)
	b = append(b, p.incarnation[:]...)
	b = append(b, p.process[:]...)
	for _, n := range []uint64{p.config, p.term, p.acknowledged} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	for _, s := range []string{p.target, p.source, p.address} {
		b = appendShort(b, s)
	}
	return b
}

// appendShort appends a text, cut to 255 bytes, behind its length.
func appendShort(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}

// readPreamble reads what follows the magic.
func readPreamble(r io.Reader) (preamble, error) {
	var p preamble
	var head [2]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return p, fmt.Errorf("read preamble: %w", err)
	}
	if head[0] != preambleVersion {
		return p, fmt.Errorf("preamble of version %d, this is version %d", head[0], preambleVersion)
	}
	fixed := make([]byte, 1+3*16+3*8)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return p, fmt.Errorf("read preamble: %w", err)
	}
	p.kind = preambleKind(fixed[0])
	if p.kind != kindStream && p.kind != kindQuestion {
		return p, fmt.Errorf("preamble of unknown kind %d", p.kind)
	}
	copy(p.cluster[:], fixed[1:])
	copy(p.incarnation[:], fixed[17:])
	copy(p.process[:], fixed[33:])
	for i, n := range []*uint64{&p.config, &p.term, &p.acknowledged} {
		*n = binary.BigEndian.Uint64(fixed[49+8*i:])
	}
	for _, s := range []*string{&p.target, &p.source, &p.address} {
		var err error
		if *s, err = readShort(r); err != nil {
			return p, fmt.Errorf("read preamble: %w", err)
		}
	}
	return p, nil
}

func readShort(r io.Reader) (string, error) {
	var length [1]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return "", err
	}
	b := make([]byte, length[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

// An answer is what the replica that was called says to a preamble.
type answer struct {
	code answerCode
	text string
}

type answerCode byte

const (
	// answerWelcome: the stream is open; the process is the one that answers.
	answerWelcome answerCode = 0
	// answerRefused: not now, for the reason in the text.
	answerRefused answerCode = 1
	// answerElsewhere: the group has the caller at the address in the text.
	answerElsewhere answerCode = 2
	// answerCopy: at the caller's address another process answers in its name.
	answerCopy answerCode = 3
)

// reason is the answer in words.
func (a answer) reason() string {
	switch a.code {
	case answerElsewhere:
		return "the group has this replica at " + a.text
	case answerCopy:
		return "another process answers in its name at " + a.text
	}
	return a.text
}

func (a answer) append(b []byte) []byte {
	b = append(b, preambleMagic...)
	b = append(b, byte(a.code))
	if a.code == answerWelcome {
		return b
	}
	return appendShort(b, a.text)
}

// errStranger says that what was called is no replica.
var errStranger = errors.New("another program answers there")

func readAnswer(r io.Reader) (a answer, err error) {
	var head [len(preambleMagic) + 1]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return a, err
	}
	if string(head[:len(preambleMagic)]) != preambleMagic {
		return a, errStranger
	}
	if a.code = answerCode(head[len(preambleMagic)]); a.code != answerWelcome {
		a.text, err = readShort(r)
	}
	return a, err
}
