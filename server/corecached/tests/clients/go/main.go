// A program that goes once through what gomemcache offers.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

func must(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func wants(got, wanted error) {
	if got != wanted {
		log.Panicf("got %v, wanted %v", got, wanted)
	}
}

func main() {
	client := memcache.New(os.Args[1])
	client.Timeout = 20 * time.Second
	must(client.DeleteAll())
	must(client.Set(&memcache.Item{Key: "k", Value: []byte("v"), Flags: 123}))
	item, err := client.Get("k")
	must(err)
	if string(item.Value) != "v" || item.Flags != 123 {
		log.Panicf("got %+v", item)
	}
	_, err = client.Get("missing")
	wants(err, memcache.ErrCacheMiss)
	wants(client.Add(&memcache.Item{Key: "k", Value: []byte("x")}), memcache.ErrNotStored)
	must(client.Add(&memcache.Item{Key: "added", Value: []byte("x")}))

	item.Value = []byte("new")
	must(client.CompareAndSwap(item))
	wants(client.CompareAndSwap(item), memcache.ErrCASConflict)
	must(client.Delete("k"))
	wants(client.Delete("k"), memcache.ErrCacheMiss)
	wants(client.CompareAndSwap(item), memcache.ErrCacheMiss)

	must(client.Set(&memcache.Item{Key: "n", Value: []byte("42")}))
	number, err := client.Increment("n", 8)
	must(err)
	if number != 50 {
		log.Panicf("got %d", number)
	}
	number, err = client.Decrement("n", 49)
	must(err)
	if number != 1 {
		log.Panicf("got %d", number)
	}
	_, err = client.Increment("missing", 1)
	wants(err, memcache.ErrCacheMiss)

	// Several clients at once, each with its own values.
	var group sync.WaitGroup
	for worker := 0; worker < 8; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			keys := []string{}
			for i := 0; i < 100; i++ {
				key := fmt.Sprintf("many-%d-%d", worker, i)
				keys = append(keys, key)
				value := bytes.Repeat([]byte(key), i*20)
				must(client.Set(&memcache.Item{Key: key, Value: value}))
			}
			items, err := client.GetMulti(keys)
			must(err)
			for i, key := range keys {
				if !bytes.Equal(items[key].Value, bytes.Repeat([]byte(key), i*20)) {
					log.Panicf("%s got %d bytes", key, len(items[key].Value))
				}
			}
		}(worker)
	}
	group.Wait()
	fmt.Println("ok")
}
