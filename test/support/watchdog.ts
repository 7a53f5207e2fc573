/** A small shell beside the servers that ends them when this process dies without having done so. */
import {type ChildProcess, spawn} from 'node:child_process';

/**
 * It reads commands from a pipe that only this process holds: however this process ends, the pipe closes. SIGQUIT comes
 * first because PostgreSQL's postmaster then ends its children; a process that is still there after 3 s is killed.
 */
const script = `
pids=
while read -r word pid; do
  case $word in
    watch) pids="$pids $pid" ;;
    forget) kept=; for each in $pids; do [ "$each" = "$pid" ] || kept="$kept $each"; done; pids=$kept ;;
    dismiss) exit 0 ;;
  esac
done
for pid in $pids; do kill -s QUIT -- "-$pid" 2>/dev/null; done
for pid in $pids; do
  tries=0
  while kill -s 0 -- "-$pid" 2>/dev/null && [ $tries -lt 60 ]; do sleep 0.05; tries=$((tries + 1)); done
  kill -s KILL -- "-$pid" 2>/dev/null
done
rm -rf -- "$1"
`;

export class Watchdog {
  readonly #shell: ChildProcess;

  /** @param directory is removed, too, when this process dies. */
  constructor(directory: string) {
    // In a session of its own, so that a Ctrl-C in the terminal does not reach it.
    this.#shell = spawn('sh', ['-c', script, 'watchdog', directory], {
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#shell.unref();
    // A watchdog that is gone is no reason to fail a test.
    this.#shell.on('error', () => {});
    this.#shell.stdin?.on('error', () => {});
    (this.#shell.stdin as unknown as {unref(): void}).unref();
  }

  /** @param pid of a process that leads a process group. */
  watch(pid: number): void {
    this.#shell.stdin?.write(`watch ${pid}\n`);
  }

  /** After the process has ended: its number may soon be another's. */
  forget(pid: number): void {
    this.#shell.stdin?.write(`forget ${pid}\n`);
  }

  dismiss(): void {
    this.#shell.stdin?.end('dismiss\n');
  }
}
