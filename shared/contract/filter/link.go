package filter

// Link is the way from a filter to the companion, and back.
type Link struct {
	// Cluster is the companion's cluster in Envoy. A request hook that cannot go on without
	// an answer may also Wait for a call to it. "" is a companion inside this process, which
	// finds the replicas and answers nobody.
	Cluster string
	// Proxy identifies this Envoy to the companion. All its workers have the same, and it
	// is another after a restart.
	Proxy string

	conversations []Conversation
}

// Conversation is what a filter says to the companion in the background, over and over.
type Conversation struct {
	Path  string
	Take  func() []byte
	Heard func(*Reply)
}

// Converse has take asked once a tick (20 ms). If it returns a body, the body is sent to
// path by POST as JSON, and heard gets the reply, or the error if there was none within
// 0.8 s. The next body is asked for after that: one call at a time. The body must not change
// until then. After failures (an error, or a status other than 2xx) the pause grows up to
// 0.5 s, in which take is not asked.
//
// Only while a filter is being made. Every conversation has its own pace.
//
// Who calls: in the wasm build each worker, for itself. In the native module the process,
// on Envoy's main thread: take and heard come one at a time, but while Envoy's workers run
// hooks of the filter, so what they share with hooks needs a lock (Deps.Mutex). Where several
// configurations of the module have a conversation with the same path (an update, other listeners, routes), the newest
// of them converses for all, but for a reply that was on its way.
//
// Nothing is sent at the end: when a VM or a configuration goes, what take has not yet
// said is lost, and of a call in progress nobody hears the reply. So what is said had
// better be the whole state, or cumulative, and kept where the next one finds it
// (Deps.Store, Deps.Keep).
func (l *Link) Converse(path string, take func() []byte, heard func(*Reply)) {
	l.conversations = append(l.conversations, Conversation{path, take, heard})
}

// Conversations are all that were begun so far. For the chain only, and for tests.
func (l *Link) Conversations() []Conversation { return l.conversations }
