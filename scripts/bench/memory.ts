/** Memory and processor time of a process and everything that it started, as Linux counts them. */
import {readdirSync, readFileSync} from 'node:fs';

const intervalMs = 50;

export interface Resources {
  peakBytes: number;
  /** User and system, as of the last look. */
  cpuSeconds: number;
}

/** Linux's USER_HZ, in which /proc counts. */
const ticksPerSecond = 100;

/** Watches a process tree until `stop`. */
export function watchProcesses(root: number): {stop(): Resources} {
  const resources: Resources = {peakBytes: 0, cpuSeconds: 0};
  const look = () => {
    const tree = treeOf(root);
    resources.peakBytes = Math.max(resources.peakBytes, sum(tree.map(residentBytes)));
    resources.cpuSeconds = Math.max(resources.cpuSeconds, sum(tree.map(cpuTicks)) / ticksPerSecond);
  };
  const timer = setInterval(look, intervalMs);
  return {
    stop() {
      clearInterval(timer);
      return resources;
    },
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function treeOf(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    const parent = pid > 0 ? parentOf(pid) : undefined;
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const tree = [root];
  for (const pid of tree) tree.push(...(children.get(pid) ?? []));
  return tree;
}

function parentOf(pid: number): number | undefined {
  const parent = statOf(pid)?.[1];
  return parent === undefined ? undefined : Number(parent);
}

/** Of the process, and of its children that have ended (proc(5): utime, stime, cutime, cstime). */
function cpuTicks(pid: number): number {
  return sum((statOf(pid) ?? []).slice(11, 15).map(Number));
}

/** From the state on: the name before it may hold spaces and parentheses, so it is counted from its end. */
function statOf(pid: number): string[] | undefined {
  const text = readProc(pid, 'stat');
  return text?.slice(text.lastIndexOf(')') + 2).split(' ');
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
