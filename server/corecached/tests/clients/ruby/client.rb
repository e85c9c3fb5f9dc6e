# dalli, which speaks the binary protocol: ruby client.rb HOST:PORT [FILE], over TLS when FILE names whom to trust.
# Goes once through what it offers; prints "ok".

require "dalli"
require "openssl"

server, authority = ARGV
options = {}
if authority
  context = OpenSSL::SSL::SSLContext.new
  context.ca_file = authority
  context.verify_mode = OpenSSL::SSL::VERIFY_PEER
  options[:ssl_context] = context
end
client = Dalli::Client.new(server, options)

def check(holds, what)
  abort("wrong: #{what}") unless holds
end

client.flush
check(client.set("k", { "a" => [1, 2] }) && client.get("k") == { "a" => [1, 2] }, "set and get")
check(client.get("missing").nil?, "a miss")
check(!client.add("k", 1) && client.replace("k", "text"), "add and replace")
check(client.set("raw", "b", nil, raw: true), "raw")
check(client.append("raw", "c") && client.prepend("raw", "a") && client.get("raw") == "abc", "append and prepend")
check(client.cas("k") { |value| value + "2" } && client.get("k") == "text2", "cas")
check(client.incr("n", 5, nil, 10) == 10 && client.incr("n", 5) == 15 && client.decr("n", 20) == 0, "incr and decr")
check(client.incr("missing", 1).nil?, "incr of what is missing")
many = (0...300).to_h { |i| ["many#{i}", "value #{i}" * (i + 1)] }
client.multi { many.each { |key, value| client.set(key, value) } }
if authority
  # get_multi of dalli 3.0.6 fails over TLS, before memcached too: it asks the secured socket for its server.
  check(many.all? { |key, value| client.get(key) == value }, "many gets")
else
  check(client.get_multi(*many.keys, "missing") == many, "get_multi")
end
big = "x" * 1_000_000
check(client.set("big", big, nil, compress: false, raw: true) && client.get("big") == big, "a large value")
check(client.fetch("fetched") { 7 } == 7 && client.get("fetched") == 7, "fetch")
check(client.touch("k", 100) && client.gat("k", 100) == "text2", "touch and gat")
check(client.delete("k") && client.get("k").nil?, "delete")
check(["1.6.45", "corecached 0.1.0"].include?(client.stats[server]["version"]) && client.version[server] == "1.6.45", "stats and version")
client.flush
check(client.get("n").nil?, "flush")
client.close
puts "ok"
