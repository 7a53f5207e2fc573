/** How much room a server has. No SQL says it; a server on this machine can be looked at, where that is allowed. */
import {open, readFile, statfs} from 'node:fs/promises';
import path from 'node:path';
import type {Connection} from '../postgres/connection.ts';
import {queryJson, type Session} from '../postgres/query.ts';

/** A socket's folder, or an address that is this machine's, or the near end of a tunnel. */
function mayBeLocal({host}: Connection): boolean {
  return host === '' || host.startsWith('/') || host === 'localhost' || host === '::1' || /^127(\.\d+){3}$/.test(host);
}

interface ServerPlace {
  /** Null for a role that may not know it: it takes a superuser, or pg_read_all_settings. */
  dataDirectory: string | null;
  /** Empty: in the data directory. */
  tablespace: string;
  systemIdentifier: string;
  startedAtSeconds: number;
}

/**
 * Free bytes on the file system that a database lies on; undefined where that can't be known for sure: the server is
 * elsewhere, the role may not ask where its data are, or this process may not read there.
 */
export async function freeSpace(session: Session): Promise<number | undefined> {
  if (!mayBeLocal(session.connection)) return undefined;
  try {
    const place = (await queryJson(
      session,
      `SELECT pg_catalog.json_build_object(
         'dataDirectory', (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'),
         'tablespace', (SELECT pg_catalog.pg_tablespace_location(dattablespace) FROM pg_catalog.pg_database WHERE datname = current_database()),
         'systemIdentifier', (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
         'startedAtSeconds', extract(epoch FROM pg_catalog.pg_postmaster_start_time()))`,
    )) as ServerPlace;
    if (place.dataDirectory === null || !(await isHere(place.dataDirectory, place))) return undefined;
    const {bavail, bsize} = await statfs(place.tablespace || place.dataDirectory);
    return bavail * bsize;
  } catch {
    // Not allowed to ask or to look: then it is not known.
    return undefined;
  }
}

/** Seconds that may pass between the start of the server's process and when it says that it was started. */
const startTolerance = 60;

/**
 * Whether the server's data lie here. The address alone does not say it (a tunnel, a container), and the same folder may
 * hold another cluster: compared are the cluster's identifier, the first 8 bytes of pg_control, and when the server that
 * runs here was started, the third line of postmaster.pid.
 */
async function isHere(folder: string, {systemIdentifier, startedAtSeconds}: ServerPlace): Promise<boolean> {
  const control = await open(path.join(folder, 'global', 'pg_control'));
  const {buffer} = await control.read(Buffer.alloc(8), 0, 8, 0).finally(() => control.close());
  const identifiers = [buffer.readBigUInt64LE(), buffer.readBigUInt64BE()].map(String);
  const [, , started] = (await readFile(path.join(folder, 'postmaster.pid'), 'utf8')).split('\n');
  return identifiers.includes(systemIdentifier) && Math.abs(Number(started) - startedAtSeconds) < startTolerance;
}
