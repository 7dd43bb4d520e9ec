package hosttest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/kv"
)

// status is the result of a host function (proxy-wasm ABI 0.2.1).
type status = uint32

const (
	ok            status = 0
	notFound      status = 1
	badArgument   status = 2
	casMismatch   status = 8
	unimplemented status = 12
)

// Kinds of header maps and buffers.
const (
	requestHeaderMap   = 0
	requestTrailerMap  = 1
	responseHeaderMap  = 2
	responseTrailerMap = 3
	callHeaderMap      = 6
	callTrailerMap     = 7

	requestBodyBuffer  = 0
	responseBodyBuffer = 1
	callBodyBuffer     = 4
	vmConfigBuffer     = 6
	configBuffer       = 7
)

// exportABI offers the host functions as module "env". They behave as in Envoy
// (source/extensions/common/wasm/context.cc, proxy-wasm-cpp-host
// src/exports.cc), also where that is a surprise.
func exportABI(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder("env")
	for name, f := range map[string]any{
		"proxy_log":                          hostLog,
		"proxy_get_log_level":                hostLogLevel,
		"proxy_send_local_response":          hostLocalResponse,
		"proxy_get_shared_data":              hostGetShared,
		"proxy_set_shared_data":              hostSetShared,
		"proxy_get_header_map_value":         hostGetHeader,
		"proxy_add_header_map_value":         hostAddHeader,
		"proxy_replace_header_map_value":     hostReplaceHeader,
		"proxy_remove_header_map_value":      hostRemoveHeader,
		"proxy_get_header_map_pairs":         hostGetHeaders,
		"proxy_set_header_map_pairs":         hostSetHeaders,
		"proxy_get_buffer_bytes":             hostGetBuffer,
		"proxy_set_buffer_bytes":             hostSetBuffer,
		"proxy_continue_stream":              hostContinue,
		"proxy_close_stream":                 hostCloseStream,
		"proxy_http_call":                    hostHTTPCall,
		"proxy_set_tick_period_milliseconds": hostSetTick,
		"proxy_set_effective_context":        hostSetContext,
		"proxy_done":                         func(context.Context) status { return ok },
		"proxy_define_metric":                hostDefineMetric,
		"proxy_increment_metric":             hostIncrementMetric,
		"proxy_record_metric":                hostRecordMetric,
		"proxy_get_metric":                   hostGetMetric,
		"proxy_get_property":                 hostGetProperty,
		"proxy_set_property":                 hostSetProperty,
		"proxy_call_foreign_function": func(_ context.Context, _, _, _, _, _, _ uint32) status {
			return notFound
		},
		"proxy_register_shared_queue": func(_ context.Context, _, _, _ uint32) status { return unimplemented },
		"proxy_resolve_shared_queue":  func(_ context.Context, _, _, _, _, _ uint32) status { return unimplemented },
		"proxy_dequeue_shared_queue":  func(_ context.Context, _, _, _ uint32) status { return unimplemented },
		"proxy_enqueue_shared_queue":  func(_ context.Context, _, _, _ uint32) status { return unimplemented },
	} {
		b.NewFunctionBuilder().WithFunc(counted(name, f)).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// counted is a host function that counts its calls.
func counted(name string, f any) any {
	do := reflect.ValueOf(f)
	return reflect.MakeFunc(do.Type(), func(args []reflect.Value) []reflect.Value {
		vmOf(args[0].Interface().(context.Context)).count(name)
		return do.Call(args)
	}).Interface()
}

// count counts a call of the host within a callback of an exchange.
func (v *vm) count(name string) {
	if v.current == 0 || v.current == v.root {
		return
	}
	if v.g.asked == nil {
		v.g.asked = map[string]int{}
	}
	v.g.asked[name]++
}

// read returns a copy of the plugin's memory.
func (v *vm) read(at, size uint32) []byte {
	b, inside := v.module.Memory().Read(at, size)
	if !inside {
		panic(fmt.Sprintf("the plugin passes memory that it does not have: %d bytes at %d", size, at))
	}
	return slices.Clone(b)
}

func (v *vm) text(at, size uint32) string { return string(v.read(at, size)) }

func (v *vm) write(at uint32, b []byte) {
	if !v.module.Memory().Write(at, b) {
		panic(fmt.Sprintf("the plugin passes memory that it does not have: %d bytes at %d", len(b), at))
	}
}

func (v *vm) write32(at, n uint32) { v.write(at, binary.LittleEndian.AppendUint32(nil, n)) }

// give copies b into memory that the plugin allocates, and writes down where.
func (v *vm) give(b []byte, atOut, sizeOut uint32) status {
	var at uint32
	if len(b) > 0 { // the SDK panics when asked for nothing
		allocate := v.module.ExportedFunction("malloc")
		if allocate == nil {
			allocate = v.module.ExportedFunction("proxy_on_memory_allocate")
		}
		results, err := allocate.Call(v.ctx, uint64(len(b)))
		if err != nil {
			panic(err)
		}
		at = api.DecodeU32(results[0])
		v.write(at, b)
	}
	v.write32(atOut, at)
	v.write32(sizeOut, uint32(len(b)))
	return ok
}

// stream is the exchange that a host function is about, nil for the plugin's
// own context.
func (v *vm) stream() *wasmStream {
	if v.effective != 0 {
		return v.streams[v.effective]
	}
	return v.streams[v.current]
}

func hostLog(ctx context.Context, level, at, size uint32) status {
	v := vmOf(ctx)
	names := []string{"trace", "debug", "info", "warn", "error", "critical"}
	if int(level) >= len(names) {
		return badArgument
	}
	if level > 0 {
		v.g.logf("%s: %s", names[level], v.text(at, size))
	}
	return ok
}

func hostLogLevel(ctx context.Context, out uint32) status {
	vmOf(ctx).write32(out, 1)
	return ok
}

func hostLocalResponse(ctx context.Context, code, detail, detailSize, body, bodySize, headers, headersSize uint32, _ int32) status {
	v := vmOf(ctx)
	s := v.stream()
	if s == nil {
		return ok // Envoy does nothing without an exchange
	}
	list, text := unmarshalPairs(v.read(headers, headersSize)), v.read(body, bodySize)
	s.replied = true
	v.guest.w.later(func() { s.x.reply(int(code), list, text) })
	return ok
}

func hostGetShared(ctx context.Context, key, keySize, out, sizeOut, casOut uint32) status {
	v := vmOf(ctx)
	value, cas, err := v.g.store.Get(v.text(key, keySize))
	if err != nil {
		return notFound
	}
	v.write32(casOut, cas)
	return v.give(value, out, sizeOut)
}

func hostSetShared(ctx context.Context, key, keySize, value, valueSize, cas uint32) status {
	v := vmOf(ctx)
	err := v.g.store.Set(v.text(key, keySize), v.read(value, valueSize), cas)
	if errors.Is(err, kv.ErrMismatch) {
		return casMismatch
	}
	return ok
}

// headerMap returns a header map that can be read, nil if there is none now.
func (v *vm) headerMap(kind uint32) *Headers {
	switch kind {
	case callHeaderMap:
		if v.answer == nil {
			return nil
		}
		return &v.answer.headers
	case callTrailerMap:
		return nil
	}
	s := v.stream()
	switch {
	case s == nil:
		return nil
	case kind == requestHeaderMap && (s.logging || !s.released):
		return &s.x.request.headers
	case kind == requestTrailerMap && s.x.request.trailed:
		return &s.x.request.trailers
	case kind == responseHeaderMap && s.x.response.begun:
		return &s.x.response.headers
	case kind == responseTrailerMap && s.x.response.trailed:
		return &s.x.response.trailers
	}
	return nil
}

// editable returns a header map that can be changed.
func (v *vm) editable(kind uint32) *Headers {
	if kind > responseTrailerMap {
		return nil
	}
	return v.headerMap(kind)
}

func hostGetHeader(ctx context.Context, kind, key, keySize, out, sizeOut uint32) status {
	v := vmOf(ctx)
	h := v.headerMap(kind)
	if h == nil {
		return badArgument
	}
	value, there := h.Get(strings.ToLower(v.text(key, keySize)))
	if !there {
		return notFound
	}
	return v.give([]byte(value), out, sizeOut)
}

func hostAddHeader(ctx context.Context, kind, key, keySize, value, valueSize uint32) status {
	v := vmOf(ctx)
	h := v.editable(kind)
	if h == nil {
		return badArgument
	}
	h.Add(strings.ToLower(v.text(key, keySize)), v.text(value, valueSize))
	return ok
}

// hostReplaceHeader changes the first value and leaves further ones, as
// Envoy's setCopy does.
func hostReplaceHeader(ctx context.Context, kind, key, keySize, value, valueSize uint32) status {
	v := vmOf(ctx)
	h := v.editable(kind)
	if h == nil {
		return badArgument
	}
	name, text := strings.ToLower(v.text(key, keySize)), v.text(value, valueSize)
	for i := range *h {
		if (*h)[i][0] == name {
			(*h)[i][1] = text
			return ok
		}
	}
	h.Add(name, text)
	return ok
}

func hostRemoveHeader(ctx context.Context, kind, key, keySize uint32) status {
	v := vmOf(ctx)
	h := v.editable(kind)
	if h == nil {
		return badArgument
	}
	h.Remove(strings.ToLower(v.text(key, keySize)))
	return ok
}

// hostGetHeaders gives an empty list where there is no map.
func hostGetHeaders(ctx context.Context, kind, out, sizeOut uint32) status {
	v := vmOf(ctx)
	var list Headers
	if h := v.headerMap(kind); h != nil {
		list = *h
	}
	return v.give(marshalPairs(list), out, sizeOut)
}

func hostSetHeaders(ctx context.Context, kind, at, size uint32) status {
	v := vmOf(ctx)
	h := v.editable(kind)
	if h == nil {
		return badArgument
	}
	*h = unmarshalPairs(v.read(at, size))
	return ok
}

// buffer returns a buffer; there is none before its first bytes.
func (v *vm) buffer(kind uint32) []byte {
	switch kind {
	case configBuffer:
		return v.guest.config
	case vmConfigBuffer:
		return nil
	case callBodyBuffer:
		if v.answer == nil {
			return nil
		}
		return v.answer.body
	}
	s := v.stream()
	switch {
	case s == nil:
		return nil
	case kind == requestBodyBuffer:
		return s.x.request.body
	case kind == responseBodyBuffer:
		return s.x.response.body
	}
	return nil
}

func hostGetBuffer(ctx context.Context, kind, start, size, out, sizeOut uint32) status {
	v := vmOf(ctx)
	if s := v.stream(); kind == requestBodyBuffer && s != nil && s.x.unreadable {
		return badArgument
	}
	b := v.buffer(kind)
	if b == nil {
		return notFound
	}
	if int(start) >= len(b) {
		return ok // and nothing is written
	}
	end := min(uint64(start)+uint64(size), uint64(len(b)))
	if end == uint64(start) {
		return ok
	}
	return v.give(b[start:end], out, sizeOut)
}

// hostSetBuffer replaces a prefix or appends; Envoy can do nothing else.
func hostSetBuffer(ctx context.Context, kind, start, size, at, dataSize uint32) status {
	v := vmOf(ctx)
	s := v.stream()
	if s == nil || kind != requestBodyBuffer && kind != responseBodyBuffer {
		return badArgument
	}
	body := &s.x.request.body
	if kind == responseBodyBuffer {
		body = &s.x.response.body
	}
	if *body == nil {
		return notFound
	}
	data := append([]byte{}, v.read(at, dataSize)...) // an empty buffer is still there
	switch {
	case start == 0 && int(size) <= len(*body):
		*body = append(data, (*body)[size:]...)
	case start == 0:
		s.x.fail(fmt.Errorf("the plugin replaces %d bytes of a body of %d: Envoy crashes", size, len(*body)))
	case int(start) >= len(*body):
		*body = append(*body, data...)
	default:
		return badArgument
	}
	return ok
}

func hostContinue(ctx context.Context, kind uint32) status {
	v := vmOf(ctx)
	s := v.stream()
	switch {
	case kind > 1:
		return badArgument
	case s == nil:
		return ok
	case kind == 0:
		v.guest.w.later(func() { s.x.resume(&s.x.request) })
	default:
		v.guest.w.later(func() { s.x.resume(&s.x.response) })
	}
	s.released = true
	return ok
}

func hostCloseStream(ctx context.Context, kind uint32) status {
	v := vmOf(ctx)
	s := v.stream()
	if kind > 1 {
		return badArgument
	}
	if s != nil {
		v.guest.w.later(s.x.close)
	}
	return ok
}

func hostHTTPCall(ctx context.Context, cluster, clusterSize, headers, headersSize, body, bodySize, _, _, millis, out uint32) status {
	v := vmOf(ctx)
	list := unmarshalPairs(v.read(headers, headersSize))
	c := Call{Cluster: v.text(cluster, clusterSize), Body: v.read(body, bodySize)}
	for _, name := range []string{":method", ":path", ":authority"} {
		if value, _ := list.Get(name); value == "" {
			return badArgument
		}
	}
	c.Method, _ = list.Get(":method")
	c.Path, _ = list.Get(":path")
	c.Headers = slices.DeleteFunc(list, func(kv [2]string) bool { return strings.HasPrefix(kv[0], ":") })
	v.lastCall++
	token, root := v.lastCall, v.root
	err := v.g.call(c, time.Duration(millis)*time.Millisecond, func(r *reply) {
		if v.root == root { // nobody hears what a configuration asked that is gone
			v.onReply(token, r)
		}
	})
	if err != nil {
		v.g.logf("callout: %v", err)
		return badArgument
	}
	v.write32(out, token)
	return ok
}

// onReply hands over the answer to a callout, which belongs to the plugin:
// whether the exchange that made it still is there is the SDK's business.
func (v *vm) onReply(token uint32, r *reply) {
	v.guest.w.enter(func() {
		v.answer = r
		v.call(v.root, "proxy_on_http_call_response", uint64(v.root), uint64(token), uint64(len(r.headers)), uint64(len(r.body)), 0)
		v.answer = nil
	})
}

func hostSetTick(ctx context.Context, millis uint32) status {
	vmOf(ctx).setTick(time.Duration(millis) * time.Millisecond)
	return ok
}

func hostSetContext(ctx context.Context, id uint32) status {
	v := vmOf(ctx)
	if id != v.root && v.streams[id] == nil {
		return badArgument
	}
	v.effective = id
	return ok
}

// wasmMetric is a series that a VM has defined: "name;label=value;…".
type wasmMetric struct {
	kind   kind
	name   string
	labels []string
}

func hostDefineMetric(ctx context.Context, k, name, nameSize, out uint32) status {
	v := vmOf(ctx)
	if kind(k) > histogram {
		return badArgument
	}
	parts := strings.Split(v.text(name, nameSize), ";")
	m := wasmMetric{kind: kind(k), name: parts[0]}
	for _, part := range parts[1:] {
		label, value, _ := strings.Cut(part, "=")
		m.labels = append(m.labels, label, value)
	}
	v.metrics = append(v.metrics, m)
	v.write32(out, uint32(len(v.metrics)-1))
	return ok
}

func hostIncrementMetric(ctx context.Context, id uint32, by int64) status {
	v := vmOf(ctx)
	if int(id) >= len(v.metrics) {
		return notFound
	}
	m := &v.metrics[id]
	if m.kind == histogram || m.kind == counter && by <= 0 {
		return badArgument
	}
	v.g.stats.add(m.kind, by, m.name, m.labels...)
	return ok
}

func hostRecordMetric(ctx context.Context, id uint32, n uint64) status {
	v := vmOf(ctx)
	if int(id) >= len(v.metrics) {
		return notFound
	}
	m := &v.metrics[id]
	if m.kind == gauge {
		v.g.stats.set(int64(n), m.name, m.labels...)
	} else {
		v.g.stats.add(m.kind, int64(n), m.name, m.labels...)
	}
	return ok
}

func hostGetMetric(ctx context.Context, id, out uint32) status {
	v := vmOf(ctx)
	if int(id) >= len(v.metrics) {
		return notFound
	}
	m := &v.metrics[id]
	if m.kind == histogram {
		return badArgument
	}
	v.write(out, binary.LittleEndian.AppendUint64(nil, uint64(v.g.stats.values[Series(m.name, m.labels...)])))
	return ok
}

func hostGetProperty(ctx context.Context, path, pathSize, out, sizeOut uint32) status {
	v := vmOf(ctx)
	s := v.stream()
	if s == nil {
		return notFound
	}
	name := v.text(path, pathSize)
	switch x := s.x; name {
	case "source\x00address":
		return v.give([]byte(clientAddress), out, sizeOut)
	case "upstream\x00address":
		if x.upstream != nil {
			return v.give([]byte(x.upstream.address), out, sizeOut)
		}
	case "upstream\x00request_attempt_count":
		return v.give(binary.LittleEndian.AppendUint64(nil, uint64(x.attempts())), out, sizeOut)
	case "response\x00code_details":
		if x.details != "" {
			return v.give([]byte(x.details), out, sizeOut)
		}
	case "xds\x00cluster_name":
		if x.pool != "" {
			return v.give([]byte(x.pool), out, sizeOut)
		}
	case subsetProperty:
		if v.g.subset != nil {
			return v.give(v.g.subset.marshal(), out, sizeOut)
		}
	}
	if rest, found := strings.CutPrefix(name, metadataProperty); found {
		namespace, key, _ := strings.Cut(rest, "\x00")
		if value, found := v.g.metadata[namespace][key]; found {
			return v.give([]byte(value), out, sizeOut)
		}
	}
	return notFound
}

const metadataProperty = "metadata\x00filter_metadata\x00"

const subsetProperty = metadataProperty + filter.SubsetNamespace + "\x00" + filter.SubsetKey

// marshal writes the hint as Envoy writes a property: a string as it is, a list as
// pairs without values.
func (s *Subset) marshal() []byte {
	if s.Text {
		return []byte(strings.Join(s.Replicas, ", "))
	}
	list := make(Headers, len(s.Replicas))
	for i, address := range s.Replicas {
		list[i][0] = address
	}
	return marshalPairs(list)
}

// hostSetProperty writes filter state, of which only the reason is looked at.
func hostSetProperty(ctx context.Context, path, pathSize, value, valueSize uint32) status {
	v := vmOf(ctx)
	s := v.stream()
	if s == nil {
		return notFound
	}
	if v.text(path, pathSize) == "inlet.why" {
		s.x.why = v.text(value, valueSize)
	}
	return ok
}

// marshalPairs writes pairs as the ABI has them: their number, the sizes of
// each name and value, then names and values with a zero behind each.
func marshalPairs(list Headers) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(list)))
	for _, kv := range list {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(kv[0])))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(kv[1])))
	}
	for _, kv := range list {
		b = append(append(b, kv[0]...), 0)
		b = append(append(b, kv[1]...), 0)
	}
	return b
}

// unmarshalPairs reads pairs; names in lower case.
func unmarshalPairs(b []byte) Headers {
	if len(b) < 4 {
		return nil
	}
	n := int(binary.LittleEndian.Uint32(b))
	sizes, data := b[4:], b[4+8*n:]
	list := make(Headers, n)
	for i := range list {
		name := binary.LittleEndian.Uint32(sizes[8*i:])
		value := binary.LittleEndian.Uint32(sizes[8*i+4:])
		list[i] = [2]string{strings.ToLower(string(data[:name])), string(data[name+1 : name+1+value])}
		data = data[name+value+2:]
	}
	return list
}
