/** What a restore does to owners, grants and publications, none of which a backup holds for the target. */
import type {LeftOut} from '../dump/left-out.ts';
import {messageOf} from '../errors.ts';
import {
  type Comparison,
  lookAtPrivileges,
  lostMemberships,
  lostPrivileges,
  type Privileges,
} from '../load/privileges.ts';
import type {ServerFacts, Session} from '../postgres/query.ts';

export interface PrivilegesBefore extends Comparison {
  before: Privileges;
  /** Of the server. */
  major: number;
}

/** Looks at a database that a restore will overwrite, or that another one will take the place of. */
export async function privilegesBefore(
  session: Session,
  {major}: ServerFacts,
  comparison: Comparison,
): Promise<PrivilegesBefore> {
  return {before: await lookAtPrivileges(session, major), major, ...comparison};
}

/**
 * What is not as it was before a restore, which is committed and stays so: a question that fails is a warning.
 * @param session on the database that was restored
 */
export async function privilegesLeftOut(
  session: Session,
  {before, major, isSameDatabase}: PrivilegesBefore,
  warn: (message: string) => void,
): Promise<LeftOut[]> {
  const because = 'a backup holds no owners and no grants';
  const listed = (after: Privileges | undefined): LeftOut[] => [
    ...lostPrivileges(before, after, {isSameDatabase}).map((lost) => ({...lost, because})),
    ...(isSameDatabase ? lostMemberships(before, after) : []).map((lost) => ({
      ...lost,
      because: 'it was dropped and made again',
    })),
  ];
  try {
    return listed(await lookAtPrivileges(session, major));
  } catch (error) {
    const all = listed(undefined);
    if (all.length > 0) {
      warn(
        `what became of owners and grants could not be asked for, so all that could be lost are listed: ${messageOf(error)}`,
      );
    }
    return all;
  }
}
