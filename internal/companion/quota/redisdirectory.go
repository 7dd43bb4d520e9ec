package quota

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// edition is a directory as it is in Redis: its text has a number before it, which grows with each change. So a Redis that went back to an older
// state is noticed: revoked keys must not come back with it.
type edition struct {
	number int64 // 0: there is none
	text   []byte
}

// editionDigits is the length of the number.
const editionDigits = 16

var (
	// getDirectory returns number and text. The text is left out if it is the one with that number and SHA-1: it is asked for often, and rarely
	// changes.
	getDirectory = redis.NewScript(`
local value = redis.call('GET', KEYS[1]) or ''
local number, text = tonumber(string.sub(value, 1, 16)) or 0, string.sub(value, 17)
if number == tonumber(ARGV[1]) and redis.sha1hex(text) == ARGV[2] then return {string.format('%.0f', number)} end
return {string.format('%.0f', number), text}`)

	// setDirectory takes the place of a text.
	setDirectory = redis.NewScript(`
local value = redis.call('GET', KEYS[1]) or ''
local number, text = tonumber(string.sub(value, 1, 16)) or 0, string.sub(value, 17)
if text ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], string.format('%016.0f', number + 1) .. ARGV[2])
return 1`)

	// restoreDirectory writes an edition if Redis has an older one.
	restoreDirectory = redis.NewScript(`
local value = redis.call('GET', KEYS[1]) or ''
if (tonumber(string.sub(value, 1, 16)) or 0) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2]) end
return 1`)
)

// Directory implements Store.
func (s *redisStore) Directory(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, redisCall)
	defer cancel()
	client, err := s.connect(ctx)
	if err != nil {
		return nil, unavailable{err}
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	sum := sha1.Sum(s.saved.text)
	list, err := getDirectory.Run(ctx, client, []string{s.key("directory")}, s.saved.number, hex.EncodeToString(sum[:])).StringSlice()
	if err != nil {
		return nil, unavailable{err}
	}
	if len(list) < 2 {
		return s.saved.text, nil // it is the one that was read before
	}
	found := edition{text: []byte(list[1])}
	if found.number, err = strconv.ParseInt(list[0], 10, 64); err != nil {
		return nil, err
	}
	if found.number < s.saved.number {
		s.log.Error("Redis lost changes of the directory; they are given back", "found", found.number, "newest", s.saved.number)
		number := fmt.Sprintf("%0*d", editionDigits, s.saved.number)
		if err := restoreDirectory.Run(ctx, client, []string{s.key("directory")}, number, s.saved.text).Err(); err != nil {
			return nil, unavailable{err}
		}
		return s.saved.text, nil
	}
	if found.number == 0 {
		return nil, nil
	}
	s.saved = found
	return found.text, nil
}

// SetDirectory implements Store.
func (s *redisStore) SetDirectory(ctx context.Context, before, document []byte) error {
	client, err := s.connect(ctx)
	if err != nil {
		return err
	}
	done, err := setDirectory.Run(ctx, client, []string{s.key("directory")}, before, document).Int()
	if err == nil && done == 0 {
		err = errChanged
	}
	return err
}

// unavailable is an error of a store that may work later.
type unavailable struct{ error }

// Unavailable is an error of a source that does not respond: nobody knows what it has.
func Unavailable(err error) error { return unavailable{err} }

func (u unavailable) Unwrap() error { return u.error }
