package meta

import (
	"strings"
	"testing"
)

func TestProgram(t *testing.T) {
	for _, test := range []struct{ executable, line, want string }{
		{"python3.11", "python3 /srv/app.py --port 80", "app.py"},
		{"python3.11", "python3 -u -W ignore -X dev app.py", "app.py"},
		{"python3.11", "python3 -Wignore app.py", "app.py"},
		{"python3.11", "python3 -m http.server 80", "http.server"},
		{"python3.11", "python3 -um http.server 80", "http.server"},
		{"python3.11", "python3 -mhttp.server 80", "http.server"},
		{"python3.11", "python3 -c import_secret", ""},
		{"python3.11", "python3 -Ic import_secret", ""},
		{"python3.11", "python3 -", ""},
		{"python3.11", "python3", ""},
		{"python3.11", "python3 -W", ""},
		{"python3.11", "/usr/bin/python3 /usr/local/bin/gunicorn app:app", "gunicorn"},
		{"python3.11", "gunicorn:master", ""},
		{"pypy3", "pypy3 -- -strange.py", "-strange.py"},
		{"node", "node server.js", "server.js"},
		{"nodejs", "node --require ./trace.js -r x --max-old-space-size=512 dist/main.js", "main.js"},
		{"node", "node --max-old-space-size 512 main.js", "main.js"},
		{"node", "node -e secret", ""},
		{"node", "node -pe secret", ""},
		{"node", "node --eval secret", ""},
		{"java", "java -Xmx1g -Dpassword=secret -jar /opt/shop-1.2.jar --x", "shop-1.2.jar"},
		{"java", "java -cp a.jar:b.jar -Dx=y com.example.Main arg", "com.example.Main"},
		{"java", "java --add-opens java.base/java.lang=ALL-UNNAMED -p mods -m shop/com.example.Main", "com.example.Main"},
		{"java", "java @options -javaagent:x.jar Main", "Main"},
		{"ruby", "ruby -Ilib -r bundler/setup bin/server", "server"},
		{"ruby3.1", "ruby -e secret", ""},
		{"perl", "perl -Mstrict -w app.pl", "app.pl"},
		{"perl5.36.0", "perl -ne secret", ""},
		{"php8.2", "php -S 0.0.0.0:80 -t public router.php", "router.php"},
		{"php", "php artisan serve", "artisan"},
		{"php", "php -r secret", ""},
		{"dotnet", "dotnet /app/Shop.dll --urls x", "Shop.dll"},
		{"dotnet", "dotnet exec --depsfile x.json Shop.dll", "Shop.dll"},
		{"dotnet", "dotnet run", ""},
		{"deno", "deno run --allow-net https://user:secret@example.com/main.ts", "main.ts"},
		{"bun", "bun run index.ts", "index.ts"},
	} {
		in := interpreterOf(test.executable)
		if in == nil {
			t.Errorf("%s is not known as an interpreter", test.executable)
			continue
		}
		if got := in.program(strings.Fields(test.line)); got != test.want {
			t.Errorf("%s: %q is named %q, want %q", test.executable, test.line, got, test.want)
		}
	}
}

func TestOtherExecutablesAreNoInterpreters(t *testing.T) {
	for _, name := range []string{"", "nginx", "bash", "sh", "pythonish", "javac", "node_exporter", "php-fpm8.2", "ztunnel", "7", "."} {
		if interpreterOf(name) != nil {
			t.Errorf("%q is taken for an interpreter", name)
		}
	}
}
