/** Memory and open files of a process while it runs: what a leak shows in. */
import {readdir, readFile} from 'node:fs/promises';
import {setTimeout as delay} from 'node:timers/promises';

export interface ProcessSample {
  /** In memory, without pages of files (Linux's RssAnon): Node.js itself, a file of 120 MB, comes and goes with what runs of it. */
  memoryBytes: number;
  openFiles: number;
}

/** Only Linux tells it (/proc). */
export const canSample = process.platform === 'linux';

/** Samples a process until it ends, 20 times a second. */
export async function sampleProcess(pid: number): Promise<ProcessSample[]> {
  const samples: ProcessSample[] = [];
  for (;;) {
    const sample = await sampleNow(pid);
    if (!sample) return samples;
    samples.push(sample);
    await delay(50);
  }
}

/** Undefined when it has ended. */
async function sampleNow(pid: number): Promise<ProcessSample | undefined> {
  try {
    const [status, files] = await Promise.all([readFile(`/proc/${pid}/status`, 'utf8'), readdir(`/proc/${pid}/fd`)]);
    // One that has ended has no memory any more, though its entry is there until somebody has waited for it.
    const memory = /^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1];
    return memory === undefined ? undefined : {memoryBytes: Number(memory) * 1024, openFiles: files.length};
  } catch {
    return undefined;
  }
}

/**
 * The most of each quarter of the samples. Of the memory the 95th percentile: a garbage collection that comes late makes a
 * peak of a moment, and a leak does not go away again.
 */
export function quarters(samples: readonly ProcessSample[]): ProcessSample[] {
  return [0, 1, 2, 3].map((quarter) => {
    const some = samples.slice((quarter * samples.length) / 4, ((quarter + 1) * samples.length) / 4);
    const memory = some.map(({memoryBytes}) => memoryBytes).toSorted((a, b) => a - b);
    return {
      memoryBytes: memory[Math.floor(memory.length * 0.95)] ?? 0,
      openFiles: Math.max(...some.map(({openFiles}) => openFiles)),
    };
  });
}
