import {execa} from 'execa';
import {ensurePrograms} from './packages.ts';

/** The process numbers of a process's children (`ps` says it alike on Linux and macOS). */
export async function childrenOf(parent: number): Promise<number[]> {
  await ensurePrograms(['ps']);
  const {stdout} = await execa('ps', ['-A', '-o', 'pid=,ppid=']);
  const pairs = stdout.split('\n').map((line) => line.trim().split(/\s+/).map(Number));
  return pairs.filter(([, ppid]) => ppid === parent).map(([pid]) => pid as number);
}
