/** PostgreSQL refuses to run as root. */
import {execa} from 'execa';

export interface UserIds {
  uid: number;
  gid: number;
}

/** Root's stand-in: `postgres` where a package made that user, else `nobody`. Undefined when we are not root. */
export async function unprivilegedUser(): Promise<UserIds | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = await Promise.all(['-u', '-g'].map((flag) => execa('id', [flag, name], {reject: false})));
    if (uid && gid && !uid.failed && !gid.failed) return {uid: Number(uid.stdout), gid: Number(gid.stdout)};
  }
  throw new Error('PostgreSQL does not run as root, and there is neither a user "postgres" nor "nobody".');
}
