/** The memory of a process and everything that it started, as Linux counts it. */
import {readdirSync, readFileSync} from 'node:fs';

const intervalMs = 50;

/** Watches a process tree until `stop`, which gives its peak. */
export function watchMemory(root: number): {stop(): number} {
  let peakBytes = 0;
  const look = () => {
    peakBytes = Math.max(peakBytes, treeBytes(root));
  };
  const timer = setInterval(look, intervalMs);
  return {
    stop() {
      clearInterval(timer);
      return peakBytes;
    },
  };
}

function treeBytes(root: number): number {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    const parent = pid > 0 ? parentOf(pid) : undefined;
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const tree = [root];
  for (const pid of tree) tree.push(...(children.get(pid) ?? []));
  return tree.reduce((sum, pid) => sum + residentBytes(pid), 0);
}

/** The name in the second field may hold spaces and parentheses: count from its end. */
function parentOf(pid: number): number | undefined {
  const text = readProc(pid, 'stat');
  return text === undefined ? undefined : Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]);
}

/** The proportional set size: pages that processes share are counted once. */
function residentBytes(pid: number): number {
  const pss = /^Pss:\s+(\d+) kB/m.exec(readProc(pid, 'smaps_rollup') ?? '')?.[1];
  const kib = pss ?? /^VmRSS:\s+(\d+) kB/m.exec(readProc(pid, 'status') ?? '')?.[1] ?? 0;
  return Number(kib) * 1024;
}

/** Undefined when the process has just ended. */
function readProc(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return undefined;
  }
}
