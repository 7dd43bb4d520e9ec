package module

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"
	"github.com/stretchr/testify/require"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// talker is a filter that has something to say all the time.
type talker struct {
	filter.Base
	link  *filter.Link
	heard []string
}

func talking(t *testing.T, p *process) (*talker, *config, *envoyConfig) {
	t.Helper()
	f, e := &talker{}, &envoyConfig{}
	c, err := newConfig(e, []byte(withCompanion), []filter.Factory{{
		Name: "policy", New: func(_ *conf.Object, d *filter.Deps) filter.Filter {
			f.link = d.Companion
			d.Companion.Converse("/v1/quota", func() []byte { return []byte("{}") }, func(r *filter.Reply) {
				f.heard = append(f.heard, string(r.Body))
			})
			return f
		},
	}}, p)
	require.NoError(t, err)
	return f, c, e
}

// reply answers the oldest conversation.
func (e *envoyConfig) reply(body string) {
	p := e.tells[0]
	e.tells = e.tells[1:]
	p.done.OnHttpCalloutDone(1, shared.HttpCalloutSuccess, [][2]shared.UnsafeEnvoyBuffer{{viewString(":status"), viewString("200")}},
		[]shared.UnsafeEnvoyBuffer{viewString(body[:1]), viewString(body[1:])})
	e.loop()
}

func TestFilterConverses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(nil)
		f, c, e := talking(t, p)
		defer c.OnDestroy()
		require.Equal(t, p.Worker, f.link.Proxy)
		require.Equal(t, "companion", f.link.Cluster)
		require.Empty(t, e.tells, "no network while a configuration is made")
		e.loop()
		require.Len(t, e.tells, 1, "with or without replicas")
		require.Equal(t, "companion/v1/quota", e.tells[0].path)
		require.Equal(t, "{}", string(e.tells[0].body))
		require.EqualValues(t, 800, e.tells[0].timeout)
		e.reply("ok")
		require.Equal(t, []string{"ok"}, f.heard)
		e.turn()
		require.Len(t, e.tells, 1)
	})
}

// The filters of the newest configuration converse, and those of an older one again when it is withdrawn.
func TestConversationsSurviveAnUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcess(nil)
		before, first, old := talking(t, p)
		old.loop()
		after, second, now := talking(t, p)
		require.Equal(t, before.link.Proxy, after.link.Proxy)
		now.loop()
		require.Len(t, now.tells, 1)
		now.reply("new")
		require.Equal(t, []string{"new"}, after.heard)
		old.reply("late")
		require.Equal(t, []string{"late"}, before.heard)
		old.run(time.Second)
		require.Empty(t, old.tells)

		second.OnDestroy()
		old.loop()
		require.Len(t, old.tells, 1)
		first.OnDestroy()
		old.tells = nil
		time.Sleep(time.Minute)
		require.True(t, old.idle(), "nothing is left that runs")
		now.loop()
		require.Empty(t, now.tells)
	})
}
