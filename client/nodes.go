package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/api/common"
)

// WithNode sends the calls of ctx to one node: they pass through unchanged.
func WithNode(ctx context.Context, node string) context.Context {
	return retarget(ctx, "node", node)
}

// WithNodes sends the unary calls of ctx to several nodes at once: the endpoint
// merges their answers, one message per node, each with its metadata.
func WithNodes(ctx context.Context, nodes ...string) context.Context {
	return retarget(ctx, "nodes", nodes...)
}

func retarget(ctx context.Context, key string, values ...string) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	md.Delete("node")
	md.Delete("nodes")
	md.Set(key, values...)
	return metadata.NewOutgoingContext(ctx, md)
}

// target names the targets of ctx for an error message.
func target(ctx context.Context) string {
	md, _ := metadata.FromOutgoingContext(ctx)
	if node := md.Get("node"); len(node) > 0 {
		return node[0]
	}
	return strings.Join(md.Get("nodes"), ",")
}

// Message is one node's part of an answer.
type Message interface {
	GetMetadata() *common.Metadata
}

// Reply is an answer that has one message per node.
type Reply[M Message] interface {
	GetMessages() []M
}

// Answer is what one node said.
type Answer[M any] struct {
	Node    string // as the caller named it; the endpoint if no node was named
	Message M
	Err     error
}

// parallel bounds how many nodes are asked at the same time.
const parallel = 32

// MaxStreams is how many nodes can be followed at the same time over one
// endpoint: it takes so many calls on a connection.
const MaxStreams = 250

// EachNode runs fn once per target node, at the same time, with a context that
// sends calls there; without targets once, for the endpoint itself. The answers
// come in the order of the targets. Of many nodes, some wait for others to be
// done: what follows a node for long uses FollowNodes.
func EachNode[M any](ctx context.Context, c *Client, fn func(ctx context.Context, node string) (M, error)) []Answer[M] {
	return eachNode(ctx, c, parallel, fn)
}

// FollowNodes is EachNode for streams that last: all nodes are followed from
// the start, at most MaxStreams for each endpoint.
func FollowNodes[M any](ctx context.Context, c *Client, fn func(ctx context.Context, node string) (M, error)) ([]Answer[M], error) {
	if most := MaxStreams * len(c.display); len(c.nodes) > most {
		return nil, &Error{Kind: Invalid, Endpoint: strings.Join(c.display, ","), Method: "follow",
			Text: fmt.Sprintf("%d nodes at once, over so many endpoints at most %d: name fewer", len(c.nodes), most)}
	}
	return eachNode(ctx, c, max(len(c.nodes), 1), fn), nil
}

func eachNode[M any](ctx context.Context, c *Client, atOnce int, fn func(ctx context.Context, node string) (M, error)) []Answer[M] {
	if len(c.nodes) == 0 {
		node := c.display[0]
		m, err := fn(ctx, node)
		return []Answer[M]{{Node: node, Message: m, Err: err}}
	}
	answers := make([]Answer[M], len(c.nodes))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, node := range c.nodes {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			m, err := fn(WithNode(ctx, node), node)
			answers[i] = Answer[M]{Node: node, Message: m, Err: err}
		})
	}
	wg.Wait()
	return answers
}

// Collect makes a unary call on every target node and answers message by
// message. A node that failed has an Answer with its error; an endpoint that
// merged the answers of several nodes has one Answer for each.
func Collect[M Message, R Reply[M]](ctx context.Context, c *Client, call func(context.Context) (R, error)) []Answer[M] {
	replies := EachNode(ctx, c, func(ctx context.Context, _ string) (R, error) { return call(ctx) })
	var answers []Answer[M]
	for _, r := range replies {
		if r.Err != nil {
			answers = append(answers, Answer[M]{Node: r.Node, Err: r.Err})
			continue
		}
		for _, m := range r.Message.GetMessages() {
			answers = append(answers, fromMessage(c, r.Node, m))
		}
	}
	return answers
}

func fromMessage[M Message](c *Client, node string, m M) Answer[M] {
	md := m.GetMetadata()
	if md.GetHostname() != "" {
		node = md.GetHostname()
	}
	return Answer[M]{Node: node, Message: m, Err: c.failed(node, md)}
}

// failed is the error that a node's metadata carries, if any.
func (c *Client) failed(node string, md *common.Metadata) error {
	if md.GetError() == "" && md.GetStatus().GetCode() == 0 {
		return nil
	}
	e := &Error{Kind: Other, Endpoint: strings.Join(c.display, ","), Node: node, Method: "call", Text: md.GetError()}
	if st := md.GetStatus(); st.GetCode() != 0 {
		e.status = status.FromProto(st)
		e.Kind, e.Text = kindOfCode(e.status.Code()), st.GetMessage()
	}
	return e
}

// DataStream is a stream of bytes, such as those of Logs and Dmesg.
type DataStream interface {
	Recv() (*common.Data, error)
}

// Copy writes a stream of bytes to w until it ends.
func (c *Client) Copy(w io.Writer, s DataStream) error {
	for {
		data, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.failed(data.GetMetadata().GetHostname(), data.GetMetadata()); err != nil {
			return err
		}
		if _, err := w.Write(data.GetBytes()); err != nil {
			return err
		}
	}
}
