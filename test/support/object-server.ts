/** An S3 server of one's own, for a test that kills or freezes it. */
import {prepareCeph} from './ceph-server.ts';
import type {ObjectHandle, ObjectServerKind} from './object-handle.ts';
import {ensurePrograms} from './packages.ts';
import {isListening} from './probe.ts';
import {ServerDirectory} from './server-directory.ts';
import {prepareSwift} from './swift-server.ts';
import {waitUntil} from './wait-until.ts';

export {createBucket, listAllKeys, listUnfinishedUploads, objectClient} from './bucket.ts';
export type {ObjectHandle, ObjectServerKind} from './object-handle.ts';

export interface ObjectServer extends ObjectHandle {
  /** Ends the server and removes what it stored. */
  stop(): Promise<void>;
  /** SIGKILL: connections are cut, later ones are refused. SIGSTOP: nothing answers any more, as behind a dead network. */
  kill(signal?: 'SIGKILL' | 'SIGSTOP'): Promise<void>;
  /** After `kill`: on the same port with what it had stored. */
  resume(): Promise<void>;
}

/** What a kind of server has to bring. */
export interface RunnableObjectServer {
  facts: ObjectHandle;
  /** Starts the processes and waits until they answer; called again after a kill. */
  run(): Promise<void>;
}

const kinds = {swift: prepareSwift, ceph: prepareCeph};

/** @param options.kind default: the environment's LOMA_TEST_OBJECT_SERVER, else swift. */
export async function startObjectServer(options: {kind?: ObjectServerKind} = {}): Promise<ObjectServer> {
  const kind = options.kind ?? kindFromEnvironment();
  await ensurePrograms([kind]);
  // Somebody may have taken a port meanwhile, and Ceph's daemons are known to die at a first start: begin again.
  for (let attempt = 1; ; attempt++) {
    const directory = await ServerDirectory.create(kind);
    try {
      const runnable = await kinds[kind](directory);
      await runnable.run();
      return server(runnable, directory);
    } catch (error) {
      await directory.remove();
      if (attempt === 3) throw error;
    }
  }
}

function server({facts, run}: RunnableObjectServer, directory: ServerDirectory): ObjectServer {
  return {
    ...facts,
    stop: () => directory.remove(),
    async kill(signal = 'SIGKILL') {
      if (signal === 'SIGSTOP') return directory.signalAll(signal);
      await directory.killAll();
      const port = Number(new URL(facts.endpoint).port);
      await waitUntil(async () => !(await isListening(port)), {what: 'the object server to be gone'});
    },
    async resume() {
      if (directory.processes.length === 0) await run();
      else directory.signalAll('SIGCONT');
    },
  };
}

function kindFromEnvironment(): ObjectServerKind {
  const kind = process.env.LOMA_TEST_OBJECT_SERVER || 'swift';
  if (kind === 'swift' || kind === 'ceph') return kind;
  throw new Error(`LOMA_TEST_OBJECT_SERVER is "${kind}": only swift and ceph are known.`);
}
