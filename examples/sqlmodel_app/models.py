"""Heroes are spread over the shards; teams and missions are few, and on every shard."""

from uuid import UUID, uuid4

from sqlmodel import Field, Relationship, SQLModel

from sqlalchemy_shards import reference_table, shard_table


class HeroMissionLink(SQLModel, table=True):
    hero_id: UUID = Field(foreign_key="hero.id", primary_key=True)
    mission_code: str = Field(foreign_key="mission.code", primary_key=True)
    is_training: bool = False

    hero: "Hero" = Relationship(back_populates="mission_links")
    mission: "Mission" = Relationship(back_populates="hero_links")


class Team(SQLModel, table=True):
    code: str = Field(primary_key=True)
    headquarters: str

    heroes: list["Hero"] = Relationship(back_populates="team")


class Mission(SQLModel, table=True):
    code: str = Field(primary_key=True)
    place: str

    hero_links: list[HeroMissionLink] = Relationship(back_populates="mission")


class Hero(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(index=True)
    secret_name: str
    age: int | None = Field(default=None, index=True)
    team_code: str | None = Field(default=None, foreign_key="team.code")

    team: Team | None = Relationship(back_populates="heroes")
    mission_links: list[HeroMissionLink] = Relationship(back_populates="hero", cascade_delete=True)


shard_table(Hero, key="id")
shard_table(HeroMissionLink, key="hero_id")
reference_table(Team)
reference_table(Mission)
