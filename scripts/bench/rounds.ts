/** Measuring in turn: every contender once a round, every other round in the opposite order. */
import type {Contender} from './contenders.ts';
import {type Resources, watchProcesses} from './memory.ts';

/** Wall time of every round, in seconds, by contender. */
export type Times = ReadonlyMap<string, readonly number[]>;

export async function measureInTurn(
  contenders: readonly Contender[],
  rounds: number,
  onResult: (title: string, seconds: number) => void,
): Promise<Times> {
  const times = new Map<string, number[]>(contenders.map(({id}) => [id, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const seconds = await timed(contender);
      times.get(contender.id)?.push(seconds);
      onResult(contender.title, seconds);
    }
  }
  return times;
}

async function timed({before, work, after}: Contender): Promise<number> {
  await before?.();
  try {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
  } finally {
    await after?.();
  }
}

/** A run of its own: looking every 50 ms costs time. */
export async function measureResources({before, work, after}: Contender): Promise<Resources> {
  await before?.();
  let watch: ReturnType<typeof watchProcesses> | undefined;
  try {
    await work((pid) => {
      watch = watchProcesses(pid);
    });
  } finally {
    watch?.stop();
    await after?.();
  }
  return watch?.stop() ?? {peakBytes: Number.NaN, cpuSeconds: Number.NaN};
}

export async function peakMemory(contender: Contender): Promise<number> {
  return (await measureResources(contender)).peakBytes;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

/** Median over the rounds of one contender's time by another's in the same round. */
export function medianRatio(times: Times, id: string, other: string): number {
  const divisors = times.get(other) ?? [];
  return median((times.get(id) ?? []).map((seconds, round) => seconds / (divisors[round] ?? NaN)));
}
